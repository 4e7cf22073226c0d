/** The store now, or as it was: both answer the same questions. */
import type { Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import type { StateView } from '../store/view.ts'

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
