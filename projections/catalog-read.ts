/**
 * Reads back what catalog-codec.ts wrote. The values come from a checksummed snapshot of our own, so their shape is
 * trusted once the version fits and every list is one; anything else is a RangeError, and the store folds the log again.
 */
import type {
  BackupMode,
  BaseKind,
  BitmapRef,
  DiskMark,
  LostStretch,
  Point,
  Recorder,
} from '../events/types.ts'
import { type CatalogData, PLAIN_VERSION } from './catalog-codec.ts'
import type {
  ActiveSlice,
  BackupPhase,
  BackupState,
  BitmapState,
  CheckpointState,
  CopyState,
  DiskState,
  Gap,
  Holder,
  PastGeneration,
  Slice,
  Tombstone,
  WindowSpan,
} from './state.ts'

type Read<T> = (plain: unknown) => T

function list<T>(plain: unknown, read: Read<T>): T[] {
  if (!Array.isArray(plain)) throw new RangeError('a catalog snapshot has no list where one belongs')
  return plain.map(read)
}

function tuple(plain: unknown): readonly never[] {
  if (!Array.isArray(plain)) throw new RangeError('a catalog snapshot has no list where one belongs')
  return plain as never[]
}

const readPoint: Read<Point> = (plain) => {
  const [position, time] = tuple(plain) as unknown as [number, number | null]
  return { position, time }
}

const readLost: Read<LostStretch> = (plain) => {
  const [from, fromTime, to, toTime, reason] = tuple(plain) as unknown as [
    number,
    number | null,
    number,
    number | null,
    string,
  ]
  return { from: { position: from, time: fromTime }, to: { position: to, time: toTime }, reason }
}

const readGap: Read<Gap> = (plain) => {
  const [kind, from, to] = tuple(plain) as unknown as [number, unknown, unknown]
  return {
    kind: kind === 0 ? 'disabled' : 'cleared',
    from: readPoint(from),
    to: to === null ? null : readPoint(to),
  }
}

const readActive: Read<ActiveSlice> = (plain) => {
  const [number, from, gaps, stretches] = tuple(plain) as unknown as [number, unknown, unknown, unknown]
  return { number, from: readPoint(from), gaps: list(gaps, readGap), lost: list(stretches, readLost) }
}

const readSlice: Read<Slice> = (plain) => {
  const [number, from, to, gaps, stretches] = tuple(plain) as unknown as [
    number,
    unknown,
    unknown,
    unknown,
    unknown,
  ]
  return {
    number,
    from: readPoint(from),
    to: readPoint(to),
    gaps: list(gaps, readGap),
    lost: list(stretches, readLost),
  }
}

const readTombstone: Read<Tombstone> = (plain) => {
  const [kind, number, at, rest] = tuple(plain) as unknown as [number, number, number, unknown]
  if (kind === 0) return { kind: 'dropped', slice: number, at, because: rest as string }
  if (kind === 1) return { kind: 'merged', slice: number, at, into: rest as number }
  return { kind: 'unmarked', slice: number, at }
}

const readPast: Read<PastGeneration> = (plain) => {
  const [generation, endedAt, numbers] = tuple(plain) as unknown as [number, number, number]
  return { generation, endedAt, numbers }
}

function readHolder(plain: readonly [number, string] | null): Holder | null {
  if (plain === null) return null
  return plain[0] === 0 ? { kind: 'backup', id: plain[1] } : { kind: 'removal' }
}

const readBitmap: Read<BitmapState> = (plain) => {
  const row = tuple(plain) as unknown as readonly unknown[]
  const lastBackup = row[14] as readonly [string, unknown] | null
  return {
    name: row[0] as string,
    granularity: row[1] as number,
    persistent: row[2] as boolean,
    retention: row[3] as number,
    generation: row[4] as number,
    createdAt: readPoint(row[5]),
    recording: row[6] as boolean,
    holder: readHolder(row[7] as readonly [number, string] | null),
    active: readActive(row[8]),
    successor: row[9] === null ? null : readActive(row[9]),
    slices: list(row[10], readSlice),
    highestNumber: row[11] as number,
    tombstones: list(row[12], readTombstone),
    pastGenerations: list(row[13], readPast),
    lastBackup: lastBackup === null ? null : { id: lastBackup[0], point: readPoint(lastBackup[1]) },
  }
}

const readWindow: Read<WindowSpan> = (plain) => {
  const [from, at] = tuple(plain)
  return { from: readPoint(from), at: readPoint(at) }
}

const readDisk: Read<DiskState> = (plain) => {
  const row = tuple(plain) as unknown as readonly unknown[]
  return {
    id: row[0] as string,
    number: row[1] as number,
    size: row[2] as number,
    addedAt: readPoint(row[3]),
    recorder: row[4] as Recorder,
    attached: row[5] as boolean,
    last: readPoint(row[6]),
    resizes: list(row[7], (resize) => {
      const [at, before, after] = tuple(resize) as unknown as [unknown, number, number]
      return { at: readPoint(at), before, after }
    }),
    lost: list(row[8], readLost),
    windows: list(row[9], readWindow),
    bitmaps: new Map(list(row[10], readBitmap).map((state) => [state.name, state])),
    wrote: row[11] === null ? null : readPoint(row[11]),
    mark: row[12] === null ? null : readMark(row[12]),
  }
}

const readMark: Read<NonNullable<DiskState['mark']>> = (plain) => {
  const row = tuple(plain) as unknown as readonly unknown[]
  return {
    at: readPoint(row[0]),
    mark: {
      kind: row[1] as DiskMark['kind'],
      device: row[2] as string,
      inode: row[3] as string,
      size: row[4] as number,
      modified: row[5] as string,
      changed: row[6] as string,
      boot: row[7] as string,
      sectorsWritten: row[8] as number | null,
    },
  }
}

const readPhase: Read<BackupPhase> = (plain) => {
  const row = tuple(plain) as unknown as readonly unknown[]
  const kind = row[0] as BackupPhase['kind']
  switch (kind) {
    case 'running':
    case 'pending':
      return { kind }
    case 'interrupted':
      return { kind, at: readPoint(row[1]) }
    case 'succeeded':
      return {
        kind,
        at: readPoint(row[1]),
        slice: row[2] as number | null,
        dropped: row[3] as number[],
        generation: row[4] as number,
      }
    case 'failed':
    case 'cancelled':
      return { kind, at: readPoint(row[1]), reason: row[2] as string }
  }
}

const readBackup: Read<BackupState> = (plain) => {
  const row = tuple(plain) as unknown as readonly unknown[]
  const [kind, position, time, name] = row[7] as [BaseKind, number, number | null, string | null]
  return {
    id: row[0] as string,
    disk: row[1] as string,
    diskNumber: row[2] as number,
    bitmap: row[3] as string,
    generation: row[4] as number,
    granularity: row[5] as number,
    mode: row[6] as BackupMode,
    base: name === null ? { kind, position, time } : { kind, position, time, name },
    point: readPoint(row[8]),
    forceCycle: row[9] as boolean,
    group: row[10] as string | null,
    copiedBy: row[11] as Recorder,
    digest: row[12] as string | null,
    bytes: row[13] as number,
    complete: row[14] as boolean,
    phase: readPhase(row[15]),
    size: row[16] as number,
    whole: row[17] as boolean,
    doubt: list(row[18], readLost),
    copy: row[19] === null ? { kind: 'kept' } : readForgotten(row[19]),
    of: row[20] as readonly string[] | null,
  }
}

const readForgotten: Read<CopyState> = (plain) => {
  const [at, reason] = tuple(plain) as unknown as [unknown, string]
  return { kind: 'forgotten', at: readPoint(at), reason }
}

const readCheckpoint: Read<CheckpointState> = (plain) => {
  const [name, at, refs] = tuple(plain) as unknown as [string, unknown, unknown]
  const readRef: Read<BitmapRef> = (ref) => {
    const [diskId, bitmapName] = tuple(ref) as unknown as [string, string]
    return { disk: diskId, bitmap: bitmapName }
  }
  return { name, point: readPoint(at), bitmaps: list(refs, readRef) }
}

/** @throws RangeError when the snapshot has another version or no catalog's shape: rebuild from the log. */
export function fromPlain(plain: unknown): CatalogData {
  const row = tuple(plain) as unknown as readonly unknown[]
  if (row[0] !== PLAIN_VERSION)
    throw new RangeError(`a catalog snapshot of version ${String(row[0])} cannot be read here`)
  return {
    last: readPoint(row[1]),
    disks: list(row[2], readDisk),
    numbers: list(row[3], (entry) => {
      const [number, id, removed, stretches, windows] = tuple(entry) as unknown as [
        number,
        string,
        boolean,
        unknown,
        unknown,
      ]
      if (stretches === undefined) return [number, { id, removed }] as const
      const told = { lost: list(stretches, readLost), windows: list(windows, readWindow) }
      return [number, { id, removed, told }] as const
    }),
    backups: list(row[4], readBackup),
    checkpoints: list(row[5], readCheckpoint),
    clockSteps: list(row[6], (entry) => {
      const [at, from, to] = tuple(entry) as unknown as [unknown, number, number]
      return { at: readPoint(at), from, to }
    }),
  }
}
