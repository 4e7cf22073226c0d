/**
 * The catalog as plain arrays in a fixed order: what snapshots store (derived values, never trusted by verify).
 *
 * Arrays, because key names would be most of the bytes and their order would be luck. No `undefined`, no Map, no class:
 * msgpack and JSON both carry it exactly. `PLAIN_VERSION` changes with the layout; a snapshot of another version is
 * refused with a RangeError, and the store rebuilds from the log. Cost: linear in what the catalog holds.
 */
import type { DiskMark, LostStretch, Point } from '../events/types.ts'
import type {
  ActiveSlice,
  BackupPhase,
  BackupState,
  BitmapState,
  CheckpointState,
  ClockStep,
  DiskName,
  DiskState,
  Gap,
  Slice,
  Tombstone,
  WindowSpan,
} from './state.ts'

export const PLAIN_VERSION = 3

export interface CatalogData {
  readonly disks: Iterable<DiskState>
  readonly numbers: Iterable<readonly [number, DiskName]>
  readonly backups: Iterable<BackupState>
  readonly checkpoints: Iterable<CheckpointState>
  readonly clockSteps: readonly ClockStep[]
  readonly last: Point
}

type Plain = readonly unknown[]

const point = ({ position, time }: Point): Plain => [position, time]
const lost = (stretch: LostStretch): Plain => [...point(stretch.from), ...point(stretch.to), stretch.reason]
const gap = ({ kind, from, to }: Gap): Plain => [
  kind === 'disabled' ? 0 : 1,
  point(from),
  to === null ? null : point(to),
]

const window = ({ from, at }: WindowSpan): Plain => [point(from), point(at)]

function active(part: ActiveSlice | null): Plain | null {
  return part === null ? null : [part.number, point(part.from), part.gaps.map(gap), part.lost.map(lost)]
}

function slice(part: Slice): Plain {
  return [part.number, point(part.from), point(part.to), part.gaps.map(gap), part.lost.map(lost)]
}

function tombstone(stone: Tombstone): Plain {
  switch (stone.kind) {
    case 'dropped':
      return [0, stone.slice, stone.at, stone.because]
    case 'merged':
      return [1, stone.slice, stone.at, stone.into]
    case 'unmarked':
      return [2, stone.slice, stone.at]
  }
}

function bitmap(state: BitmapState): Plain {
  const holder = state.holder === null ? null : state.holder.kind === 'backup' ? [0, state.holder.id] : [1]
  return [
    state.name,
    state.granularity,
    state.persistent,
    state.retention,
    state.generation,
    point(state.createdAt),
    state.recording,
    holder,
    active(state.active),
    active(state.successor),
    state.slices.map(slice),
    state.highestNumber,
    state.tombstones.map(tombstone),
    state.pastGenerations.map((past) => [past.generation, past.endedAt, past.numbers]),
    state.lastBackup === null ? null : [state.lastBackup.id, point(state.lastBackup.point)],
  ]
}

function disk(state: DiskState): Plain {
  return [
    state.id,
    state.number,
    state.size,
    point(state.addedAt),
    state.recorder,
    state.attached,
    point(state.last),
    state.resizes.map(({ at, before, after }) => [point(at), before, after]),
    state.lost.map(lost),
    state.windows.map(window),
    [...state.bitmaps.values()].map(bitmap),
    state.wrote === null ? null : point(state.wrote),
    state.mark === null ? null : [point(state.mark.at), ...mark(state.mark.mark)],
  ]
}

function mark({ kind, device, inode, size, modified, changed, boot, sectorsWritten }: DiskMark): Plain {
  return [kind, device, inode, size, modified, changed, boot, sectorsWritten]
}

function phase(state: BackupPhase): Plain {
  switch (state.kind) {
    case 'running':
    case 'pending':
      return [state.kind]
    case 'interrupted':
      return [state.kind, point(state.at)]
    case 'succeeded':
      return [state.kind, point(state.at), state.slice, [...state.dropped], state.generation]
    case 'failed':
    case 'cancelled':
      return [state.kind, point(state.at), state.reason]
  }
}

function backup(state: BackupState): Plain {
  const { base } = state
  return [
    state.id,
    state.disk,
    state.diskNumber,
    state.bitmap,
    state.generation,
    state.granularity,
    state.mode,
    [base.kind, ...point(base), base.name ?? null],
    point(state.point),
    state.forceCycle,
    state.group,
    state.copiedBy,
    state.digest,
    state.bytes,
    state.complete,
    phase(state.phase),
    state.size,
    state.whole,
    state.doubt.map(lost),
    state.copy.kind === 'kept' ? null : [point(state.copy.at), state.copy.reason],
    state.of === null ? null : [...state.of],
  ]
}

function checkpoint(state: CheckpointState): Plain {
  return [state.name, point(state.point), state.bitmaps.map((ref) => [ref.disk, ref.bitmap])]
}

function diskName([number, { id, removed, told }]: readonly [number, DiskName]): Plain {
  return told === undefined
    ? [number, id, removed]
    : [number, id, removed, told.lost.map(lost), told.windows.map(window)]
}

/** One list of the catalog. Values are immutable: an item that is the same object is the same item. */
export interface CatalogSection {
  /** Items that go into one stored value together. */
  readonly page: number
  readonly items: readonly unknown[]
  plain(item: number): Plain
}

export interface CatalogSections {
  /** Everything that is no list. */
  readonly head: Plain
  readonly lists: readonly CatalogSection[]
}

export function sectionsOf(data: CatalogData): CatalogSections {
  const numbers = [...data.numbers]
  return {
    head: [PLAIN_VERSION, point(data.last)],
    lists: [
      section(64, [...data.disks], disk),
      { page: 256, items: numbers.map(([, name]) => name), plain: (item) => diskName(numbers[item]!) },
      section(256, [...data.backups], backup),
      section(256, [...data.checkpoints], checkpoint),
      section(256, data.clockSteps, (step) => [point(step.at), step.from, step.to]),
    ],
  }
}

function section<T>(page: number, items: readonly T[], plain: (item: T) => Plain): CatalogSection {
  return { page, items, plain: (item) => plain(items[item]!) }
}

export function toPlain(data: CatalogData): Plain {
  const { head, lists } = sectionsOf(data)
  return [...head, ...lists.map((list) => list.items.map((_, item) => list.plain(item)))]
}
