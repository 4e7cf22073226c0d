/**
 * Records in, stored values of an incident out: names replaced, times moved, other disks left out, and everything up to the
 * incident's beginning folded into windows as a compaction would (R29). Positions stay, so every bitmap, slice and plan at
 * every event that is no write stays too. One chain from position 0, of the incident's own.
 */
import { hash as oneShot } from 'node:crypto'
import {
  EMPTY_HASH,
  encodeEvents,
  encodeGap,
  encodeWindows,
  encodeWrites,
  ownHash,
} from '../../events/record.ts'
import type { LogRecord, LogWindow, WindowSection, WriteColumns, WriteSection } from '../../events/types.ts'
import type { StoredEntry } from '../log/entries.ts'
import type { Renamer } from './anonymise.ts'
import type { ChosenDisks } from './chosen-disks.ts'
import type { Shift } from './shift.ts'
import { WindowFold } from './window-fold.ts'

type WritesRecord = Extract<LogRecord, { kind: 'writes' }>

export interface WriterOptions {
  /** Writes up to this position are folded; -1: none. */
  readonly from: number
  /** Positions that a backup, a lost stretch or a window refers to: no window may hold one of them and the next (R29). */
  readonly referred: ReadonlySet<number>
  readonly names: Renamer
  readonly shift: Shift
  readonly disks: ChosenDisks
}

/** Rows of one disk inside a record, with the position and the times of each. */
interface Piece {
  readonly disk: number
  readonly first: number
  readonly columns: WriteColumns
  /** Of the record: the time of rows without times of their own. */
  readonly time: number
}

export class IncidentWriter {
  readonly #options: WriterOptions
  readonly entries: StoredEntry[] = []
  records = 0
  #hash: Uint8Array = EMPTY_HASH
  #fold: WindowFold | undefined
  #windows: LogWindow[] = []

  constructor(options: WriterOptions) {
    this.#options = options
  }

  add(record: LogRecord): void {
    switch (record.kind) {
      case 'events':
        this.#events(record)
        break
      case 'writes':
        this.#writes(record)
        break
      case 'windows':
        for (const window of record.windows) this.#window(window)
        break
      case 'gap':
        this.#gap(record)
        break
      default:
        throw new TypeError(`there is no kind of record ${JSON.stringify(record satisfies never)}`)
    }
  }

  /** Everything that is still being folded goes out. */
  end(): readonly StoredEntry[] {
    this.#flush()
    return this.entries
  }

  #events(record: Extract<LogRecord, { kind: 'events' }>): void {
    this.#flush()
    const { names, shift, disks } = this.#options
    const events = disks.events(record).map((event) => names.event(shift.event(event)))
    const encoded = encodeEvents(
      record.first,
      shift.time(record.time),
      names.meta(record.meta),
      events,
      this.#hash,
    )
    this.#put(encoded.first, encoded.bytes, encoded.hash)
  }

  #gap({ first, count, time, lastTime }: Extract<LogRecord, { kind: 'gap' }>): void {
    this.#flush()
    const { shift } = this.#options
    const hash = digest(this.#hash, Buffer.from(`gap ${first} ${count}`))
    this.#put(first, encodeGap(first, count, shift.time(time), shift.time(lastTime), hash), hash)
  }

  /** Rows before the beginning are folded, those of other disks only counted, the rest goes on as it was. */
  #writes(record: WritesRecord): void {
    const { from, disks, shift } = this.#options
    let kept: WriteSection[] = []
    let keptFirst = 0
    let keptTime = 0
    const putKept = () => {
      if (kept.length === 0) return
      this.#flush()
      const encoded = encodeWrites(keptFirst, shift.time(keptTime), kept, this.#hash)
      this.#put(encoded.first, encoded.bytes, encoded.hash)
      kept = []
    }
    for (const piece of piecesOf(record, from)) {
      const { disk, first, columns, time } = piece
      const rows = columns.offsets.length
      if (first > from && disks.has(disk)) {
        if (kept.length === 0) {
          keptFirst = first
          keptTime = record.first === first ? record.time : (columns.times?.[0] ?? time)
        }
        kept.push({ disk, columns: shift.columns(columns) })
        continue
      }
      putKept()
      if (first <= from) this.#foldRows(piece)
      else
        this.#others({
          first,
          count: rows,
          time: columns.times?.[0] ?? time,
          lastTime: columns.times?.[rows - 1] ?? time,
        })
    }
    putKept()
  }

  #foldRows(piece: Piece): void {
    const { columns } = piece
    for (let row = 0; row < columns.offsets.length; ) {
      // Up to a position that something refers to, and no further.
      let to = row + 1
      while (to < columns.offsets.length && !this.#options.referred.has(piece.first + to - 1)) to++
      const chosen = this.#options.disks.has(piece.disk) ? piece.disk : null
      this.#folding().rows(chosen, piece.first, piece.time, columns, row, to)
      if (this.#options.referred.has(piece.first + to - 1)) this.#close()
      row = to
    }
  }

  /** After the beginning, writes of other disks are windows of their own, with nothing in them. */
  #others(place: Omit<LogWindow, 'sections'>): void {
    this.#close()
    this.#folding().nothing(place)
    this.#close()
  }

  /** What a compaction left already goes on as it is, but for other disks. */
  #window(window: LogWindow): void {
    this.#close()
    const sections = window.sections.filter(({ disk }) => this.#options.disks.has(disk))
    this.#windows.push({ ...window, sections })
  }

  #folding(): WindowFold {
    this.#fold ??= new WindowFold()
    return this.#fold
  }

  #close(): void {
    const window = this.#fold?.window()
    this.#fold = undefined
    if (window !== undefined) this.#windows.push(window)
  }

  #flush(): void {
    this.#close()
    const windows = this.#windows.map((window) => this.#shifted(window))
    this.#windows = []
    const first = windows[0]?.first
    if (first === undefined) return
    const hash = digest(this.#hash, ownHash(encodeWindows(first, windows, EMPTY_HASH)))
    this.#put(first, encodeWindows(first, windows, hash), hash)
  }

  #shifted(window: LogWindow): LogWindow {
    const { shift } = this.#options
    const sections = window.sections.map(
      (section): WindowSection => ({ ...section, last: shift.point(section.last) }),
    )
    return { ...window, time: shift.time(window.time), lastTime: shift.time(window.lastTime), sections }
  }

  #put(position: number, value: Uint8Array, hash: Uint8Array): void {
    this.entries.push({ position, value })
    this.records++
    this.#hash = hash
  }
}

/** The sections of a record, cut where the beginning of the incident lies inside one. */
function* piecesOf(record: WritesRecord, from: number): Generator<Piece> {
  let first = record.first
  let time = record.time
  for (const { disk, columns } of record.sections) {
    const rows = columns.offsets.length
    const before = Math.min(Math.max(from + 1 - first, 0), rows)
    for (const [start, end] of [
      [0, before],
      [before, rows],
    ] as const) {
      if (start < end) yield { disk, first: first + start, columns: slice(columns, start, end), time }
    }
    first += rows
    time = columns.times?.[rows - 1] ?? time
  }
}

function slice({ offsets, lengths, ops, times }: WriteColumns, from: number, to: number): WriteColumns {
  return {
    offsets: offsets.subarray(from, to),
    lengths: lengths.subarray(from, to),
    ...(ops === undefined ? {} : { ops: ops.subarray(from, to) }),
    ...(times === undefined ? {} : { times: times.subarray(from, to) }),
  }
}

function digest(before: Uint8Array, content: Uint8Array): Uint8Array {
  return new Uint8Array(oneShot('sha256', Buffer.concat([before, content]), 'buffer'))
}
