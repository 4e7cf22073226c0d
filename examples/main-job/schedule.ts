/**
 * A day of backups in ninety seconds: what an orchestration agent does to a disk while its guest works, at moments of the
 * trace's own clock. Everything goes through the public API; each step says in words what came of it.
 */
import * as text from '../../src/cli/render/text.ts'
import {
  type Backup,
  type BackupMode,
  CheckpointError,
  KiB,
  type SinceInput,
  type Store,
} from '../../src/index.ts'

export const DISK = 'guest/vda'
export const DISK_SIZE = 2 * 1024 * 1024 * KiB
export const BITMAP = 'daily'
export const CHECKPOINT = 'before-upgrade'
const RETENTION = 4

export interface Step {
  /** Seconds since the trace's first line. */
  readonly at: number
  readonly what: string
  /** Resolves to what came of it. */
  run(store: Store): Promise<string>
}

/** The disk and its bitmap, before the guest's first write. */
export async function prepare(store: Store): Promise<void> {
  const disk = await store.ensureDisk(DISK, { size: DISK_SIZE })
  await disk.ensureBitmap(BITMAP, { granularity: 64 * KiB, retention: RETENTION })
}

export const SCHEDULE: readonly Step[] = [
  begin(5, 'full-1', 'full'),
  succeed(7, 'full-1'),
  begin(15, 'incr-1', 'incremental'),
  succeed(17, 'incr-1'),
  begin(25, 'incr-2', 'incremental'),
  succeed(27, 'incr-2'),
  begin(30, 'incr-3', 'incremental'),
  fail(31, 'incr-3', 'the target ran out of space'),
  begin(33, 'incr-4', 'incremental'),
  succeed(34, 'incr-4'),
  begin(40, 'diff-1', 'differential'),
  succeed(41, 'diff-1'),
  begin(44, 'partial-1', 'differential', { since: { slice: 1 } }),
  succeed(45, 'partial-1'),
  { at: 48, what: `checkpoint ${CHECKPOINT}, banking ${BITMAP}`, run: checkpoint },
  { at: 52, what: 'begin incr-5, retention being full', run: refused },
  begin(55, 'incr-5', 'incremental', { since: { backup: 'incr-4' }, forceCycle: true }),
  succeed(57, 'incr-5'),
  { at: 68, what: 'delete slice 2, in the middle', run: deleteSlice },
  begin(75, 'incr-6', 'incremental'),
  succeed(77, 'incr-6'),
]

interface BeginExtras {
  readonly since?: SinceInput
  readonly forceCycle?: boolean
}

function begin(at: number, id: string, mode: BackupMode, extras: BeginExtras = {}): Step {
  const forced = extras.forceCycle === true ? ', forced cycle' : ''
  return {
    at,
    what: `begin ${id}: ${mode}${extras.since === undefined ? '' : ` since ${words(extras.since)}`}${forced}`,
    async run(store) {
      const { plan } = await store.disk(DISK).beginBackup({ bitmap: BITMAP, mode, id, ...extras })
      return `${text.bytes(plan.bytes)} to copy in ${text.plural(plan.extents.length, 'extent')}`
    },
  }
}

function succeed(at: number, id: string): Step {
  return {
    at,
    what: `${id} succeeds`,
    async run(store) {
      const backup: Backup = store.backup(id)
      const { slice, droppedSlices } = await backup.succeed()
      const dropped = droppedSlices.flatMap((one) => Object.values(one))
      const kept = slice === null ? 'no new slice' : `slice ${slice}`
      return dropped.length === 0 ? kept : `${kept}; dropped slice ${dropped.join(', ')}`
    },
  }
}

function fail(at: number, id: string, reason: string): Step {
  return {
    at,
    what: `${id} fails: ${reason}`,
    async run(store) {
      await store.backup(id).fail(reason)
      return 'merged back, as if it had not begun'
    },
  }
}

async function checkpoint(store: Store): Promise<string> {
  const { point } = await store.createCheckpoint(CHECKPOINT, { bitmaps: [{ disk: DISK, bitmap: BITMAP }] })
  return `position ${point.position}`
}

/** The refusal is the point: nothing is recorded, and it names the slices that stand in the way (R15, R21). */
async function refused(store: Store): Promise<string> {
  const before = store.head.hash
  try {
    await store.disk(DISK).beginBackup({ bitmap: BITMAP, mode: 'incremental', since: { backup: 'incr-4' } })
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'RETENTION_FULL') throw error
    if (store.head.hash !== before) throw new Error('a refused command changed the log')
    return `refused (${error.code}): nothing changed`
  }
  throw new Error('retention should have refused this backup')
}

async function deleteSlice(store: Store): Promise<string> {
  const { slice, into } = await store.disk(DISK).bitmap(BITMAP).deleteSlice(2)
  return into === null ? `slice ${slice} dropped` : `its bits went into slice ${into}`
}

function words(since: SinceInput): string {
  if (typeof since === 'string') return since
  return Object.entries(since)
    .map(([kind, value]) => `${kind} ${String(value)}`)
    .join(' ')
}
