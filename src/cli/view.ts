/** The store now, or as it was: both answer the same questions. And which of them a command's words and its answer are about (R13). */
import type { Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import type { StateView } from '../store/view.ts'
import { UsageError } from './exit.ts'
import type { BitmapReference } from './parse.ts'

/** Whose slices `slice:N` means: the bitmap that was named, or the disk's only one. */
export function bitmapContext(
  store: Store,
  disk: string | undefined,
  named: string | undefined,
): { readonly bitmap?: string } {
  if (named !== undefined) return { bitmap: named }
  const bitmaps = store.disks().find((info) => info.disk === disk)?.bitmaps ?? []
  return bitmaps.length === 1 ? { bitmap: bitmaps[0]! } : {}
}

/** A slice as a point of this bitmap; other points as they are. */
export function pointOn(point: PointInput, context: { readonly bitmap?: string }): PointInput {
  return typeof point === 'object' && 'slice' in point ? { ...point, ...context } : point
}

/** Without a point: the state at the log's head, through the same door as any other moment (R22). */
export function viewAt(store: Store, point: PointInput | undefined, signal: AbortSignal): Promise<StateView> {
  return store.at(point ?? 'now', { signal })
}

/**
 * What a command finds, for its words to be read by: the store as it is; as it was before its record, when its id comes back
 * (R13).
 */
export async function viewBefore(store: Store, commandId: string | undefined): Promise<StateView> {
  const first = await eventOf(store, commandId, false)
  if (first === undefined) return store
  return await store.at(first === 0 ? 'start' : { position: first - 1 })
}

/**
 * What a command came to, for its answer: a command id may come back when all of that is gone, and its answer stays the first
 * one (R13).
 */
export async function viewAfter(store: Store, commandId: string | undefined): Promise<StateView> {
  const last = await eventOf(store, commandId, true)
  return last === undefined || last === store.head.position ? store : await store.at({ position: last })
}

/** The first or last event of the command's record. None: it has no id, or changed nothing. */
async function eventOf(
  store: Store,
  commandId: string | undefined,
  reverse: boolean,
): Promise<number | undefined> {
  if (commandId === undefined) return undefined
  for await (const { position } of store.log({ commandId, reverse, limit: 1 })) return position
  return undefined
}

/** Of what the words may mean, what is there. @throws UsageError when that is more than one; when it is none, the first is taken. */
export function bitmapMeant(view: StateView, meanings: readonly BitmapReference[]): BitmapReference {
  const disks = new Map(view.disks().map(({ disk, bitmaps }) => [disk, bitmaps]))
  const there = meanings.filter(({ disk, bitmap }) => disks.get(disk)?.includes(bitmap) === true)
  if (there.length > 1) {
    const named = there.map(({ disk, bitmap }) => `bitmap "${bitmap}" of disk "${disk}"`).join(' or ')
    throw new UsageError(
      `These words mean ${named}, and the command line has no others for them. Use the library, or bitmaps with other names.`,
      { possibilities: there },
    )
  }
  return there[0] ?? meanings[0]!
}
