/**
 * A run: one stored value that took the place of records. Windows that a compaction folded them into (R29), or a gap where a
 * repair found nothing left (R28).
 *
 *     rest    = head (kind 4) | windows:varint | window …        or        head (kind 5)
 *     window  = count | time - last time before | last time - time | sections:varint | section …
 *     section = disk | count - writes | bytes | window's last position - last | window's last time - last time
 *             | rows:varint | shift:u8 | lengths | gaps                      (length >> shift), (distance >> shift)
 *     gaps    = the first range's offset + 1 unit, then bytes between two ranges: never 0, so ranges ascend and are joined
 *
 * Sections ascend by disk. The hash in the frame is the chain's after the last record that was replaced: it cannot be computed
 * from what is left, it is carried. What vouches for a run is a `log-compacted` or `log-repaired` event, and nothing else.
 * Cost: about 18 bytes a window and disk, 3 to 6 bytes a range; one pass to encode or decode.
 */
import { alignmentOf, putLengths, SHIFT_MAX, shiftOf, takeLengths } from './columns.ts'
import { RecordDamage, RecordTooNew } from './damage.ts'
import { BODY_AT, closeFrame, type Head, LAYOUT_RUN, openFrame, putHead, sha256, takeHead } from './frame.ts'
import type { LogRecord, LogWindow, WindowSection } from './types.ts'
import { Reader, Writer } from './varint.ts'

const RUN_VERSION = 1
const KIND_WINDOWS = 4
const KIND_GAP = 5

const scratch = new Writer()

/**
 * The stored value of contiguous windows from position `first` on. `hashAfter`: the chain's hash after the last record that they
 * replace. Throws RangeError at windows that are not contiguous, go back in time, or hold ranges that are not ascending and joined.
 */
export function encodeWindows(
  first: number,
  windows: readonly LogWindow[],
  hashAfter: Uint8Array,
): Uint8Array {
  const head = windows[0]
  const last = windows[windows.length - 1]
  if (head === undefined || last === undefined) throw new RangeError('a run needs a window')
  openFrame(scratch, LAYOUT_RUN, hashAfter)
  const { time } = head
  const count = last.first + last.count - first
  putHead(scratch, { version: RUN_VERSION, kind: KIND_WINDOWS, first, time, lastTime: last.lastTime, count })
  scratch.varint(windows.length)
  let next = first
  let before = time
  for (const window of windows) {
    if (window.first !== next || window.count < 1)
      throw new RangeError(`a window at ${window.first} cannot follow position ${next - 1}`)
    putWindow(window, before)
    next += window.count
    before = window.lastTime
  }
  return closeFrame(scratch)
}

function putWindow(window: LogWindow, before: number): void {
  scratch.varint(window.count)
  scratch.varint(window.time - before)
  scratch.varint(window.lastTime - window.time)
  scratch.varint(window.sections.length)
  let disk = -1
  for (const section of window.sections) {
    if (section.disk <= disk) throw new RangeError('sections of a window ascend by disk')
    disk = section.disk
    putSection(section, window)
  }
}

function putSection(section: WindowSection, window: LogWindow): void {
  const { offsets, lengths } = section.columns
  const rows = offsets.length
  if (rows === 0 || lengths.length !== rows)
    throw new RangeError(`a section has ${rows} offsets and ${lengths.length} lengths`)
  const shift = shiftOf(alignmentOf(offsets, lengths))
  scratch.varint(section.disk)
  scratch.varint(window.count - section.writes)
  scratch.varint(section.bytes)
  scratch.varint(window.first + window.count - 1 - section.last.position)
  scratch.varint(window.lastTime - (section.last.time ?? 0))
  scratch.varint(rows)
  scratch.byte(shift)
  putLengths(scratch, lengths, shift)
  const unit = 2 ** shift
  const gaps = new Float64Array(rows)
  let end = -unit
  for (let i = 0; i < rows; i++) {
    gaps[i] = offsets[i]! - end
    if (gaps[i]! <= 0) throw new RangeError('ranges of a window ascend and are joined')
    end = offsets[i]! + lengths[i]!
  }
  putLengths(scratch, gaps, shift)
}

/** The stored value of positions whose records are lost (R28). `hashAfter`: the chain's hash after them, as far as it is known. */
export function encodeGap(
  first: number,
  count: number,
  time: number,
  lastTime: number,
  hashAfter: Uint8Array,
): Uint8Array {
  if (count < 1) throw new RangeError('a gap holds at least one position')
  openFrame(scratch, LAYOUT_RUN, hashAfter)
  putHead(scratch, { version: RUN_VERSION, kind: KIND_GAP, first, time, lastTime, count })
  return closeFrame(scratch)
}

/** SHA-256 of what a run says: what `log-compacted` vouches for. */
export function ownHash(value: Uint8Array): Uint8Array {
  return sha256(value.subarray(BODY_AT))
}

/** The value's checksum has been checked. Throws RecordDamage or RecordTooNew. */
export function decodeRun(value: Uint8Array): LogRecord {
  const from = new Reader(value, BODY_AT)
  const head = takeHead(from)
  if (head.version > RUN_VERSION) throw new RecordTooNew('run', head.version, RUN_VERSION)
  const { first, count, time, lastTime } = head
  if (head.kind === KIND_GAP) {
    from.end()
    return { kind: 'gap', first, count, time, lastTime }
  }
  if (head.kind !== KIND_WINDOWS) throw new RecordDamage('format', `a run of kind ${head.kind}`)
  const windows = takeWindows(from, head)
  from.end()
  return { kind: 'windows', first, count, time, lastTime, windows }
}

function takeWindows(from: Reader, head: Head): LogWindow[] {
  const windows: LogWindow[] = []
  let next = head.first
  let before = head.time
  for (let left = from.count(4); left > 0; left--) {
    const window = takeWindow(from, next, before)
    windows.push(window)
    next += window.count
    before = window.lastTime
  }
  if (next !== head.first + head.count || before !== head.lastTime || windows[0]?.time !== head.time)
    throw new RecordDamage('format', 'the windows are not those announced')
  return windows
}

function takeWindow(from: Reader, first: number, before: number): LogWindow {
  const count = from.varint()
  const time = before + from.varint()
  const lastTime = time + from.varint()
  if (count === 0) throw new RecordDamage('format', 'a window of no event')
  if (first + count > Number.MAX_SAFE_INTEGER || lastTime > Number.MAX_SAFE_INTEGER)
    throw new RecordDamage('format', 'a window beyond 2^53')
  const sections: WindowSection[] = []
  let disk = -1
  for (let left = from.count(8); left > 0; left--) {
    const section = takeSection(from, { first, count, time, lastTime })
    if (section.disk <= disk) throw new RecordDamage('format', 'sections of a window do not ascend')
    disk = section.disk
    sections.push(section)
  }
  return { first, count, time, lastTime, sections }
}

function takeSection(from: Reader, window: Omit<LogWindow, 'sections'>): WindowSection {
  const disk = from.varint()
  const writes = window.count - from.varint()
  const bytes = from.varint()
  const position = window.first + window.count - 1 - from.varint()
  const time = window.lastTime - from.varint()
  if (writes < 1 || position < window.first || time < window.time)
    throw new RecordDamage('format', 'a section that does not fit its window')
  const rows = from.varint()
  const shift = from.byte()
  if (rows === 0 || rows > writes || shift > SHIFT_MAX || rows * 2 > from.left)
    throw new RecordDamage('format', `a section of ${rows} ranges for ${writes} writes`)
  const lengths = new Float64Array(rows)
  const offsets = new Float64Array(rows)
  takeLengths(from, lengths)
  takeLengths(from, offsets)
  const unit = 2 ** shift
  let end = -1
  for (let i = 0; i < rows; i++) {
    const offset = end + offsets[i]!
    end = offset + lengths[i]!
    if (end * unit > Number.MAX_SAFE_INTEGER)
      throw new RecordDamage('format', 'a range is no place on a disk')
    offsets[i] = offset * unit
    lengths[i] = lengths[i]! * unit
  }
  return { disk, writes, bytes, last: { position, time }, columns: { offsets, lengths } }
}
