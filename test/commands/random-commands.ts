/** Random command sequences for the properties: two disks, three bitmaps, few names, so that they meet often. */
import fc from 'fast-check'
import type { BitmapRef, LogRecord } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { decideTransaction } from '../../src/commands/transaction.ts'
import type { BeginBackup, Command } from '../../src/commands/types.ts'
import { CheckpointError } from '../../src/errors.ts'
import { CALM, recordOf } from '../../src/testing/given.ts'

export const REFS: readonly BitmapRef[] = [
  { disk: 'a', bitmap: 'x' },
  { disk: 'a', bitmap: 'y' },
  { disk: 'b', bitmap: 'x' },
]

/** A step: some writes, a command, or a transaction. `seed` chooses among what the state offers (which backup, which base). */
export type Step =
  | { readonly kind: 'writes'; readonly disk: string; readonly count: number }
  | { readonly kind: 'commands'; readonly commands: readonly Draft[] }
export type Draft = (catalog: Catalog) => Command

/** What a step leaves in the log; null where it is refused or changes nothing, and where its disk is gone. */
export function recordOfStep(catalog: Catalog, step: Step): LogRecord | null {
  if (step.kind === 'writes') {
    if (catalog.disk(step.disk) === undefined) return null
    return recordOf(catalog, { type: 'writes', disk: step.disk, count: step.count })
  }
  const commands = step.commands.map((draft) => draft(catalog))
  try {
    const { events } = decideTransaction(catalog, commands, CALM)
    return events.length > 0 ? recordOf(catalog, events) : null
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    return null
  }
}

const ref = fc.constantFrom(...REFS)
const flag = fc.boolean()
/** Without fast-check's bias to small values: each number chooses something, and all should be chosen. */
const pick = fc.noBias(fc.nat({ max: 100_000 }))
const choice = fc.noBias(fc.nat({ max: 100_000 }))

function living(catalog: Catalog, seed: number): string {
  const ids = [...catalog.backups()].filter(
    ({ phase }) => phase.kind === 'running' || phase.kind === 'pending' || phase.kind === 'interrupted',
  )
  return ids[seed % Math.max(1, ids.length)]?.id ?? 'none'
}

/** Any backup, mostly a succeeded one; in the order of their begin, so that neighbours are a chain now and then. */
function succeeded(catalog: Catalog, seed: number): string {
  const all = [...catalog.backups()]
  const done = all.filter(({ phase }) => phase.kind === 'succeeded')
  const from = done.length === 0 || seed % 8 === 0 ? all : done
  return from[seed % Math.max(1, from.length)]?.id ?? 'none'
}

function begin(
  catalog: Catalog,
  { disk, bitmap }: BitmapRef,
  seed: number,
  forceCycle: boolean,
  group: boolean,
): Command {
  const mode = (['incremental', 'incremental', 'differential', 'full', 'copy'] as const)[seed % 5] ?? 'copy'
  const command: BeginBackup = {
    type: 'begin-backup',
    backup: `b${catalog.last.position}-${disk}-${bitmap}`,
    disk,
    bitmap,
    mode,
    forceCycle,
    copiedBy: 'caller',
  }
  const grouped = group ? { ...command, group: `g${catalog.last.position}` } : command
  if (mode === 'full' || mode === 'copy' || seed % 3 === 0) return grouped
  const starts = catalog.disk(disk)?.bitmaps.get(bitmap)?.slices ?? []
  const slice = starts[seed % Math.max(1, starts.length)]
  if (slice === undefined) return grouped
  return { ...grouped, base: { kind: 'slice', name: String(slice.number), ...slice.from } }
}

const bitmapCommand = fc
  .tuple(ref, choice, pick, flag, fc.noBias(fc.nat({ max: 3 })))
  .map(([{ disk, bitmap }, which, seed, force, small]): Draft => {
    const other = REFS[seed % REFS.length] ?? { disk, bitmap }
    const choices: Draft[] = [
      () => ({
        type: 'add-bitmap',
        disk,
        bitmap,
        retention: small,
        disabled: seed % 7 === 0,
        persistent: force,
      }),
      () =>
        seed % 6 === 0
          ? { type: 'remove-bitmap', disk, bitmap }
          : { type: 'add-bitmap', disk, bitmap, retention: 2 },
      () => ({ type: 'clear-bitmap', disk, bitmap }),
      () => ({ type: 'enable-bitmap', disk, bitmap }),
      () => ({ type: 'disable-bitmap', disk, bitmap }),
      () => ({ type: 'merge-bitmaps', disk, bitmap, sources: [other] }),
      () => ({
        type: 'set-retention',
        disk,
        bitmap,
        retention: small === 0 && seed % 4 !== 0 ? 3 : small,
        forceCycle: force,
      }),
      () => ({ type: 'bank', disk, bitmap, forceCycle: force }),
      () => ({ type: 'bank', disk, bitmap, forceCycle: true }),
      (catalog) => {
        const slices = catalog.disk(disk)?.bitmaps.get(bitmap)?.slices ?? []
        return {
          type: 'delete-slice',
          disk,
          bitmap,
          slice: slices[seed % Math.max(1, slices.length)]?.number ?? small,
        }
      },
      (catalog) => begin(catalog, { disk, bitmap }, seed, force, false),
      (catalog) => begin(catalog, { disk, bitmap }, seed, force, true),
    ]
    return choices[which % choices.length] ?? choices[0]!
  })

const MARK = {
  kind: 'file',
  device: '8:1',
  inode: '1',
  size: 1,
  modified: '1700000000000000000',
  changed: '1700000000000000000',
  boot: '00'.repeat(16),
  sectorsWritten: null,
} as const

const otherCommand = fc
  .tuple(ref, choice, pick, flag)
  .map(([{ disk, bitmap }, which, seed, force]): Draft => {
    const name = `c${seed % 3}`
    const choices: Draft[] = [
      (catalog) => ({ type: 'succeed-backup', backup: living(catalog, seed) }),
      (catalog) => ({ type: 'succeed-backup', backup: living(catalog, seed) }),
      (catalog) => ({ type: 'fail-backup', backup: living(catalog, seed), reason: 'why' }),
      (catalog) => ({ type: 'cancel-backup', backup: living(catalog, seed), reason: '' }),
      (catalog) => ({ type: 'interrupt-backup', backup: living(catalog, seed) }),
      (catalog) => ({ type: 'resume-backup', backup: living(catalog, seed) }),
      () => ({
        type: 'create-checkpoint',
        checkpoint: name,
        bitmaps: seed % 2 === 0 ? [{ disk, bitmap }] : REFS.slice(0, 2),
        forceCycle: force,
      }),
      () => ({ type: 'delete-checkpoint', checkpoint: name }),
      () => ({ type: 'resize-disk', disk, size: (1 + (seed % 4)) * 1_000_000 }),
      () => ({ type: 'declare-lost', disk, from: null, reason: 'test' }),
      () => ({ type: 'attach-disk', disk, recorder: force ? 'store' : 'caller', quiet: true }),
      () => ({ type: 'detach-disk', disk }),
      (catalog) => ({
        type: 'record-window',
        disk,
        from: catalog.disk(disk)?.last ?? { position: 0, time: null },
        writes: 1,
        extents: [[0, 512]],
      }),
      (catalog) => ({
        type: 'mark-disk',
        disk,
        mark: { ...MARK, size: catalog.disk(disk)?.size ?? 1, inode: String(seed % 3) },
      }),
      (catalog) => ({ type: 'forget-backup', backup: succeeded(catalog, seed), reason: name }),
      (catalog) => ({
        type: 'record-combined',
        backup: `m${catalog.last.position}`,
        of: [succeeded(catalog, seed), succeeded(catalog, seed + 1)],
      }),
      () => (seed % 20 === 0 ? { type: 'remove-disk', disk } : { type: 'add-disk', disk, size: 1_000_000 }),
    ]
    return choices[which % choices.length] ?? choices[0]!
  })

const draft = fc.oneof({ weight: 3, arbitrary: bitmapCommand }, { weight: 2, arbitrary: otherCommand })

export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('writes' as const),
        disk: fc.constantFrom('a', 'b'),
        count: fc.integer({ min: 1, max: 5 }),
      }),
    },
    { weight: 6, arbitrary: draft.map((one): Step => ({ kind: 'commands', commands: [one] })) },
    {
      weight: 2,
      arbitrary: fc
        .array(draft, { minLength: 2, maxLength: 4 })
        .map((commands): Step => ({ kind: 'commands', commands })),
    },
  ),
  { minLength: 5, maxLength: 60, size: 'max' },
)
