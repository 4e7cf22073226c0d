/**
 * The catalog: which disks, bitmaps, slices, backups and checkpoints there are, folded from the log (without bits).
 *
 * It is small and kept in memory whole. A record of writes costs one update per section, an event costs one copy of the
 * objects on its path. Values are immutable, so a caller may hold what it read; the maps are the only thing that changes.
 * The point of an event is the end of its record (R20); only generation ids, disk numbers and tombstones are exact positions.
 */
import type { DiskNumber, DomainEvent, LogRecord, Point, WriteColumns } from '../events/types.ts'
import { applyBackupEvent } from './catalog-backups.ts'
import { applyBitmapEvent } from './catalog-bitmaps.ts'
import { type CatalogSections, sectionsOf, toPlain } from './catalog-codec.ts'
import { applyCopyEvent } from './catalog-copies.ts'
import { applyDiskEvent } from './catalog-disks.ts'
import { fromPlain } from './catalog-read.ts'
import { OverlayMap } from './overlay.ts'
import type { BackupState, BitmapState, CheckpointState, ClockStep, DiskName, DiskState } from './state.ts'

/** What `decide` and every question may ask of the catalog. */
export interface CatalogReader {
  disk(id: string): DiskState | undefined
  /** Also disks that were removed: records keep naming them by number. */
  diskByNumber(number: DiskNumber): DiskName | undefined
  disks(): Iterable<DiskState>
  backup(id: string): BackupState | undefined
  /** In order of their begin. */
  backups(): Iterable<BackupState>
  checkpoint(name: string): CheckpointState | undefined
  checkpoints(): Iterable<CheckpointState>
  clockSteps(): readonly ClockStep[]
  /** Last event folded; position -1 and time null when there was none. */
  readonly last: Point
}

/** What the folds of one family may change. Not for use outside projections/catalog*.ts. */
export interface CatalogWriter extends CatalogReader {
  setDisk(disk: DiskState): void
  forgetDisk(disk: DiskState): void
  setBitmap(disk: string, bitmap: BitmapState): void
  setBackup(backup: BackupState): void
  setCheckpoint(checkpoint: CheckpointState): void
  forgetCheckpoint(name: string): void
}

export const START: Point = { position: -1, time: null }

/** The end of a record: what a point inside an events record means (R20). */
export function endOf(record: LogRecord): Point {
  return { position: record.first + record.count - 1, time: record.lastTime }
}

export class Catalog implements CatalogWriter {
  readonly #disks: OverlayMap<string, DiskState>
  readonly #numbers: OverlayMap<number, DiskName>
  readonly #backups: OverlayMap<string, BackupState>
  readonly #checkpoints: OverlayMap<string, CheckpointState>
  #clockSteps: readonly ClockStep[]
  #last: Point

  constructor(below?: Catalog) {
    this.#disks = below === undefined ? new OverlayMap() : below.#disks.fork()
    this.#numbers = below === undefined ? new OverlayMap() : below.#numbers.fork()
    this.#backups = below === undefined ? new OverlayMap() : below.#backups.fork()
    this.#checkpoints = below === undefined ? new OverlayMap() : below.#checkpoints.fork()
    this.#clockSteps = below === undefined ? [] : below.#clockSteps
    this.#last = below === undefined ? START : below.#last
  }

  get last(): Point {
    return this.#last
  }

  disk(id: string): DiskState | undefined {
    return this.#disks.get(id)
  }

  diskByNumber(number: DiskNumber): DiskName | undefined {
    return this.#numbers.get(number)
  }

  /** Which incarnation of a disk an event at `position` means by `id`. Undefined: there was none yet. */
  numberAt(id: string, position: number): DiskNumber | undefined {
    const now = this.#disks.get(id)
    if (now !== undefined && now.number <= position) return now.number
    let found: DiskNumber | undefined
    for (const [number, name] of this.#numbers.entries())
      if (name.id === id && number <= position && number > (found ?? -1)) found = number
    return found
  }

  disks(): Iterable<DiskState> {
    return this.#disks.values()
  }

  backup(id: string): BackupState | undefined {
    return this.#backups.get(id)
  }

  backups(): Iterable<BackupState> {
    return this.#backups.values()
  }

  checkpoint(name: string): CheckpointState | undefined {
    return this.#checkpoints.get(name)
  }

  checkpoints(): Iterable<CheckpointState> {
    return this.#checkpoints.values()
  }

  clockSteps(): readonly ClockStep[] {
    return this.#clockSteps
  }

  /**
   * Folds one whole record. Records come in order, without holes.
   * @throws RangeError when the record is not the next one, or an event names what does not exist: a damaged log or our bug.
   */
  apply(record: LogRecord): void {
    if (record.first !== this.#last.position + 1) {
      throw new RangeError(
        `a record that begins at ${record.first} cannot follow position ${this.#last.position}`,
      )
    }
    if (record.kind !== 'events') {
      this.applyWrites(record)
      return
    }
    const at = endOf(record)
    record.events.forEach((event, index) => {
      this.applyEvent(event, record.first + index, at)
    })
  }

  /** Writes change no shape: only where the log and the disks last moved. */
  applyWrites(record: Exclude<LogRecord, { kind: 'events' }>): void {
    if (record.kind === 'windows') {
      for (const { sections } of record.windows) {
        for (const { disk: number, last } of sections) this.#moved(record.first, number, last)
      }
    } else if (record.kind === 'writes') {
      let next = record.first
      for (const { disk: number, columns } of record.sections) {
        const rows = columns.offsets.length
        next += rows
        if (rows > 0)
          this.#moved(record.first, number, { position: next - 1, time: lastTimeOf(columns, record.time) })
      }
    }
    this.#last = endOf(record)
  }

  #moved(first: number, number: DiskNumber, last: Point): void {
    const name = this.#numbers.get(number)
    if (name === undefined)
      throw new RangeError(`a record at ${first} names disk number ${number}, which was never added`)
    const disk = name.removed ? undefined : this.#disks.get(name.id)
    if (disk !== undefined) this.#disks.set(disk.id, { ...disk, last, wrote: last })
  }

  /** Folds one event: `position` is its own, `at` the end of its record. */
  applyEvent(event: DomainEvent, position: number, at: Point): void {
    switch (event.type) {
      case 'disk-added':
      case 'disk-resized':
      case 'disk-removed':
      case 'disk-attached':
      case 'disk-detached':
      case 'stretch-lost':
      case 'window':
      case 'maybe-written':
      case 'disk-marked':
        applyDiskEvent(this, event, position, at)
        break
      case 'bitmap-added':
      case 'bitmap-removed':
      case 'bitmap-cleared':
      case 'bitmap-enabled':
      case 'bitmap-disabled':
      case 'bitmap-merged':
      case 'retention-set':
      case 'bitmap-reset':
      case 'slice-frozen':
      case 'slice-dropped':
      case 'slice-merged':
      case 'slice-reactivated':
        applyBitmapEvent(this, event, position, at)
        break
      case 'backup-begun':
      case 'backup-pending':
      case 'backup-interrupted':
      case 'backup-resumed':
      case 'backup-succeeded':
      case 'backup-failed':
      case 'backup-cancelled':
        applyBackupEvent(this, event, at)
        break
      case 'backup-forgotten':
      case 'backups-combined':
        applyCopyEvent(this, event, at)
        break
      case 'checkpoint-created':
        this.setCheckpoint({ name: event.checkpoint, point: at, bitmaps: event.bitmaps })
        break
      case 'checkpoint-deleted':
        this.forgetCheckpoint(event.checkpoint)
        break
      case 'clock-stepped':
        this.#clockSteps = [...this.#clockSteps, { at, from: event.from, to: event.to }]
        break
      case 'log-compacted':
      case 'log-repaired':
      case 'disk-imported':
      case 'nothing-changed':
        break
      default:
        throw new RangeError(`a catalog cannot fold ${JSON.stringify(event satisfies never)}`)
    }
    this.#last = at
  }

  /** A copy-on-write view for deciding a transaction; this catalog must not change while the fork is in use. */
  fork(): Catalog {
    return new Catalog(this)
  }

  setDisk(disk: DiskState): void {
    this.#disks.set(disk.id, disk)
    if (this.#numbers.get(disk.number) === undefined)
      this.#numbers.set(disk.number, { id: disk.id, removed: false })
  }

  forgetDisk(disk: DiskState): void {
    this.#disks.delete(disk.id)
    const { id, lost, windows } = disk
    const nothing = lost.length === 0 && windows.length === 0
    this.#numbers.set(disk.number, { id, removed: true, ...(nothing ? {} : { told: { lost, windows } }) })
  }

  /** Also how a transaction marks a bitmap that it removes at its end (R20), on its fork. */
  setBitmap(diskId: string, bitmap: BitmapState): void {
    const disk = this.#disks.get(diskId)
    if (disk === undefined) throw new RangeError(`disk "${diskId}" does not exist`)
    this.#disks.set(diskId, { ...disk, bitmaps: new Map(disk.bitmaps).set(bitmap.name, bitmap) })
  }

  setBackup(backup: BackupState): void {
    this.#backups.set(backup.id, backup)
  }

  setCheckpoint(checkpoint: CheckpointState): void {
    this.#checkpoints.set(checkpoint.name, checkpoint)
  }

  forgetCheckpoint(name: string): void {
    this.#checkpoints.delete(name)
  }

  /** Arrays in a fixed order, for snapshots; equal catalogs give equal arrays. */
  toPlain(): unknown {
    return toPlain(this.#data)
  }

  /** The same in pieces, taken at once: later folds do not change them. */
  sections(): CatalogSections {
    return sectionsOf(this.#data)
  }

  get #data() {
    return {
      disks: this.#disks.values(),
      numbers: this.#numbers.entries(),
      backups: this.#backups.values(),
      checkpoints: this.#checkpoints.values(),
      clockSteps: this.#clockSteps,
      last: this.#last,
    }
  }

  /** @throws RangeError when `plain` is of another version, or no catalog. */
  static fromPlain(plain: unknown): Catalog {
    const data = fromPlain(plain)
    const catalog = new Catalog()
    for (const disk of data.disks) catalog.#disks.set(disk.id, disk)
    for (const [number, name] of data.numbers) catalog.#numbers.set(number, name)
    for (const backup of data.backups) catalog.#backups.set(backup.id, backup)
    for (const checkpoint of data.checkpoints) catalog.#checkpoints.set(checkpoint.name, checkpoint)
    catalog.#clockSteps = data.clockSteps
    catalog.#last = data.last
    return catalog
  }
}

function lastTimeOf(columns: WriteColumns, time: number): number {
  return columns.times?.at(-1) ?? time
}
