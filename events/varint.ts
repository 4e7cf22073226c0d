/**
 * Integers from 0 to 2^53 - 1 in as few bytes as they need: seven bits a byte, lowest first, high bit = more follows.
 *
 * `Writer` is one growing buffer, reused for ever, so that encoding allocates nothing; `Reader` never reads outside its
 * bytes and refuses what no writer of ours makes. The hot loops (columns.ts) have their own copies of the short cases.
 */
import { RecordDamage } from './damage.ts'

/** No varint of ours is longer: 8 × 7 bits hold 2^53. */
export const VARINT_BYTES_MAX = 8

export class Writer {
  bytes = new Uint8Array(1 << 16)
  at = 0

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    const needed = this.at + count
    if (needed <= this.bytes.length) return
    const larger = new Uint8Array(Math.max(needed, this.bytes.length * 2))
    larger.set(this.bytes.subarray(0, this.at))
    this.bytes = larger
  }

  byte(value: number): void {
    this.reserve(1)
    this.bytes[this.at++] = value
  }

  /** Throws RangeError unless `value` is a safe integer ≥ 0. */
  varint(value: number): void {
    if (!(Number.isSafeInteger(value) && value >= 0)) throw new RangeError(`not a whole number ≥ 0: ${value}`)
    this.reserve(VARINT_BYTES_MAX)
    let rest = value
    while (rest >= 0x80) {
      this.bytes[this.at++] = (rest % 128) | 0x80
      rest = Math.floor(rest / 128)
    }
    this.bytes[this.at++] = rest
  }

  /** A signed number of up to 53 bits, zigzag: 0, -1, 1, -2 … become 0, 1, 2, 3 …, computed without leaving 53 bits. */
  zigzag(value: number): void {
    const sign = value < 0 ? 1 : 0
    const magnitude = value < 0 ? -1 - value : value
    const low = (magnitude % 64) * 2 + sign
    this.byte(magnitude < 64 ? low : low | 0x80)
    if (magnitude >= 64) this.varint(Math.floor(magnitude / 64))
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.bytes.set(bytes, this.at)
    this.at += bytes.length
  }
}

export class Reader {
  constructor(
    readonly bytes: Uint8Array,
    public at = 0,
  ) {}

  get left(): number {
    return this.bytes.length - this.at
  }

  byte(): number {
    if (this.at >= this.bytes.length) throw new RecordDamage('length', 'ends too early')
    return this.bytes[this.at++]!
  }

  varint(): number {
    let value = 0
    let unit = 1
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.byte()
      value += (byte & 0x7f) * unit
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break
        return value
      }
      unit *= 128
    }
    throw new RecordDamage('format', 'a number is larger than 2^53 - 1')
  }

  zigzag(): number {
    const first = this.byte()
    let magnitude = (first & 0x7f) >>> 1
    if (first >= 0x80) magnitude += this.varint() * 64
    if (magnitude > Number.MAX_SAFE_INTEGER)
      throw new RecordDamage('format', 'a distance is larger than 2^53 - 1')
    return (first & 1) === 1 ? -1 - magnitude : magnitude
  }

  /** A number of things that take at least `bytesEach` of what is left: a damaged count cannot make us allocate. */
  count(bytesEach: number): number {
    const value = this.varint()
    if (value * bytesEach > this.left)
      throw new RecordDamage('length', `announces ${value} entries, has ${this.left} bytes left`)
    return value
  }

  take(count: number): Uint8Array {
    if (count > this.left) throw new RecordDamage('length', `needs ${count} bytes, has ${this.left} left`)
    this.at += count
    return this.bytes.subarray(this.at - count, this.at)
  }

  end(): void {
    if (this.left !== 0) throw new RecordDamage('length', `${this.left} bytes too many`)
  }
}
