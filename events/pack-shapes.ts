/**
 * Which records a pack holds, apart from their rows. Thousands of records have a handful of shapes (one write on disk 7), so
 * the shapes are listed once and the records become runs of them: a boundary between records costs nearly nothing.
 */
import { RecordDamage } from './damage.ts'
import type { LogRecord } from './types.ts'
import type { Reader, Writer } from './varint.ts'

export interface ShapeSection {
  readonly disk: number
  readonly rows: number
  /** Whether the section has a column of times. */
  readonly times: boolean
}

/** The sections of a record; none for a record kept verbatim. */
export type Shape = readonly ShapeSection[]

export class Shapes {
  readonly #disks = new Map<number, number>()
  readonly #shapes = new Map<string, readonly number[]>()
  readonly #sequence: { shape: number; run: number }[] = []
  readonly #index = new Map<string, number>()

  add(record: LogRecord): void {
    const fields = record.kind === 'writes' ? this.#fieldsOf(record) : [0]
    const key = fields.join()
    let shape = this.#index.get(key)
    if (shape === undefined) {
      shape = this.#shapes.size
      this.#index.set(key, shape)
      this.#shapes.set(key, fields)
    }
    const last = this.#sequence[this.#sequence.length - 1]
    if (last?.shape === shape) last.run++
    else this.#sequence.push({ shape, run: 1 })
  }

  #fieldsOf(record: Extract<LogRecord, { kind: 'writes' }>): number[] {
    const fields = [record.sections.length]
    for (const { disk, columns } of record.sections) {
      let index = this.#disks.get(disk)
      if (index === undefined) {
        index = this.#disks.size
        this.#disks.set(disk, index)
      }
      fields.push(index, columns.offsets.length * 2 + (columns.times === undefined ? 0 : 1))
    }
    return fields
  }

  put(out: Writer, shift: number): void {
    out.varint(this.#disks.size)
    for (const disk of this.#disks.keys()) out.varint(disk)
    out.byte(shift)
    out.varint(this.#shapes.size)
    for (const fields of this.#shapes.values()) for (const field of fields) out.varint(field)
    for (const { shape, run } of this.#sequence) {
      out.varint(shape)
      out.varint(run)
    }
  }
}

export interface ShapeLayout {
  readonly shift: number
  /** One a record. */
  readonly shapes: readonly Shape[]
  /** Of all records together. */
  readonly rows: number
}

export function takeShapes(from: Reader, records: number): ShapeLayout {
  const disks = Array.from({ length: from.count(1) }, () => from.varint())
  const shift = from.byte()
  const known = Array.from({ length: from.count(1) }, () => takeShape(from, disks))
  const shapes: Shape[] = []
  let rows = 0
  while (shapes.length < records) {
    const shape = known[from.varint()]
    const run = from.varint()
    if (shape === undefined || run === 0 || run > records - shapes.length) {
      throw new RecordDamage('format', 'a run of records does not fit')
    }
    const shapeRows = shape.reduce((sum, section) => sum + section.rows, 0)
    rows += shapeRows * run
    for (let i = 0; i < run; i++) shapes.push(shape)
  }
  return { shift, shapes, rows }
}

function takeShape(from: Reader, disks: readonly number[]): Shape {
  return Array.from({ length: from.count(2) }, () => {
    const disk = disks[from.varint()]
    const packed = from.varint()
    const rows = Math.floor(packed / 2)
    if (disk === undefined || rows === 0) throw new RecordDamage('format', 'a shape without disk or rows')
    return { disk, rows, times: packed % 2 === 1 }
  })
}
