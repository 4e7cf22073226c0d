/**
 * A disk whose bytes are known, beside a store that only knows events: every unit of it holds the number of the write that
 * made it. A backup's copy is what the disk held in its plan's extents at its point. Restoring is done by brute force, laying
 * copies in every order that the rule allows, so that coverage can be compared with what really comes out.
 */
import { expect } from 'vitest'
import { coverage, wouldBreak } from '../../src/audit/coverage.ts'
import type { Repair } from '../../src/audit/repairs.ts'
import type { PointState, WouldBreak } from '../../src/audit/restore-points.ts'
import { CheckpointError } from '../../src/errors.ts'
import { openMemoryStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import type { BeginRequest, PlanExtent, SinceInput } from '../../src/store/types.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'

export const UNIT = 4096
const DISK = 'vda'
/** Granularities in units; retention. */
const BITMAPS = { fine: [1, 2], plain: [2, 0], coarse: [4, 6] } as const
const NAMES = Object.keys(BITMAPS) as (keyof typeof BITMAPS)[]

/** Content by unit; -1: never copied. */
type Content = readonly number[]

interface Copy {
  readonly id: string
  readonly life: number
  readonly low: number
  readonly point: number
  readonly units: ReadonlyMap<number, number>
  readonly size: number
  readonly whole: boolean
  /** Misses something that nothing on top brings. */
  readonly flawed: boolean
  /** The begun backup whose point this is holds the whole disk. */
  readonly topWhole: boolean
  kept: boolean
}

interface Told {
  readonly life: number
  readonly from: number
  readonly to: number
}

/** What laying in every legal order can give. */
interface Image {
  readonly at: number
  readonly content: Content
  readonly flawed: boolean
  readonly last: Copy
  readonly layers: number
}

export interface Seen {
  whole: number
  doubtful: number
  broken: number
  gone: number
  /** Doubtful images that were indeed wrong, and that happened to be right. */
  wrong: number
  right: number
  combined: number
  repaired: number
  recreated: number
  breakers: number
  wouldBreak: number
  continued: number
}

export function nothingSeen(): Seen {
  return {
    whole: 0,
    doubtful: 0,
    broken: 0,
    gone: 0,
    wrong: 0,
    right: 0,
    combined: 0,
    repaired: 0,
    recreated: 0,
    breakers: 0,
    wouldBreak: 0,
    continued: 0,
  }
}

export interface Step {
  readonly kind: number
  readonly a: number
  readonly b: number
  readonly c: number
}

export class World {
  readonly #store: Store
  readonly #seen: Seen
  readonly #clock: ManualClock
  #content: number[] = []
  #version = 0
  #ids = 0
  #life = 0
  readonly #copies: Copy[] = []
  readonly #running = new Map<string, Copy>()
  /** What the disk really held at each point, by position. */
  readonly #real = new Map<number, Content>()
  readonly #told: Told[] = []
  #silent: { from: number; extents: [number, number][]; window: boolean } | null = null
  /** Newest loss first. */
  readonly #forgotten: Copy[] = []

  private constructor(store: Store, clock: ManualClock, seen: Seen) {
    this.#store = store
    this.#clock = clock
    this.#seen = seen
  }

  static async make(seen: Seen): Promise<World> {
    const clock = manualClock(Date.UTC(2026, 0, 1))
    const world = new World(await openMemoryStore({ clock }), clock, seen)
    await world.#addDisk(19)
    return world
  }

  async close(): Promise<void> {
    await this.#store.close()
  }

  async #addDisk(units: number): Promise<void> {
    this.#life += 1
    this.#content = Array.from({ length: units }, () => ++this.#version)
    const disk = await this.#store.ensureDisk(DISK, { size: units * UNIT })
    for (const name of NAMES) {
      const [granularity, retention] = BITMAPS[name]
      await disk.addBitmap(name, { granularity: granularity * UNIT, retention })
    }
  }

  /** One step; what the rules refuse is no step. */
  async step({ kind, a, b, c }: Step): Promise<void> {
    this.#clock.advance(1000)
    try {
      await this.#do(kind, a, b, c)
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error
    }
  }

  async #do(kind: number, a: number, b: number, c: number): Promise<void> {
    const disk = this.#store.disk(DISK)
    const name = NAMES[a % NAMES.length]!
    if (kind < 16) await this.#write(a, b)
    else if (kind < 34) await this.#begin(name, b, c)
    else if (kind < 42) await this.#end(a, b)
    else if (kind < 46) await this.#forget(a, b)
    else if (kind < 49) await this.#combine(a, b, c)
    else if (kind === 49) await disk.bitmap(name).bank({ forceCycle: b % 2 === 0 })
    else if (kind === 50) {
      const { slices } = await disk.bitmap(name).slices()
      const slice = slices[b % Math.max(1, slices.length)]
      if (slice !== undefined) await disk.bitmap(name).deleteSlice(slice.slice)
    } else if (kind === 51) await disk.bitmap(name).clear()
    else if (kind === 52) await (b % 2 === 0 ? disk.bitmap(name).disable() : disk.bitmap(name).enable())
    else if (kind === 53) await disk.bitmap(name).merge([{ bitmap: NAMES[b % NAMES.length]! }])
    else if (kind === 54) await this.#checkpoint(name, b)
    else if (kind === 55) await this.#resize(a, b)
    else if (kind < 60) this.#writeSilently(a, b, c)
    else if (kind < 62) await this.tell()
    else if (kind === 62 && b % 4 === 0) await this.#replaceDisk(a)
    else if (kind === 63) await this.#failPartly(a, b)
  }

  #range(a: number, b: number): readonly [first: number, count: number] {
    const first = a % this.#content.length
    return [first, Math.min(1 + (b % 3), this.#content.length - first)]
  }

  async #write(a: number, b: number): Promise<void> {
    const [first, count] = this.#range(a, b)
    const op = (['write', 'zero', 'discard'] as const)[b % 3]!
    // Not aligned: half a unit is enough to change it.
    const half = b % 2 === 0 ? 0 : UNIT / 2
    await this.#store
      .disk(DISK)
      .recordWrites([{ offset: first * UNIT + half, length: count * UNIT - half, op }])
    this.#change(first, count)
  }

  #change(first: number, count: number): void {
    for (let unit = first; unit < first + count; unit++) this.#content[unit] = ++this.#version
  }

  /** Written without a record; `tell` confesses it later, as a lost stretch or as a window. */
  #writeSilently(a: number, b: number, c: number): void {
    this.#silent ??= { from: this.#store.head.position, extents: [], window: c % 2 === 0 }
    const [first, count] = this.#range(a, b)
    this.#silent.extents.push([first * UNIT, count * UNIT])
    this.#change(first, count)
  }

  async tell(): Promise<void> {
    const silent = this.#silent
    if (silent === null) return
    this.#silent = null
    const disk = this.#store.disk(DISK)
    const from = { position: silent.from }
    const size = this.#content.length * UNIT
    const extents = silent.extents
      .filter(([offset]) => offset < size)
      .map(([offset, length]): [number, number] => [offset, Math.min(length, size - offset)])
    if (silent.window) await disk.recordWindow({ from, extents })
    else await disk.declareLost('the tracker was away', { from })
    this.#told.push({ life: this.#life, from: silent.from, to: this.#store.head.position })
  }

  async #begin(bitmap: string, b: number, c: number): Promise<void> {
    const mode = (['incremental', 'incremental', 'incremental', 'differential', 'full', 'copy'] as const)[
      b % 6
    ]!
    const since = this.#since(bitmap, b, c)
    await this.#beginNow({
      bitmap,
      mode,
      forceCycle: b % 2 === 0,
      ...(since === undefined || mode === 'full' || mode === 'copy' ? {} : { since }),
    })
    // Most end well at once; some stay running while other things happen.
    if (c % 4 !== 0) await this.#end(this.#running.size - 1, 0)
  }

  #since(bitmap: string, b: number, c: number): SinceInput | undefined {
    const head = this.#store.head.position
    switch (c % 9) {
      case 0:
      case 1:
        return { backup: this.#copies[b % Math.max(1, this.#copies.length)]?.id ?? 'none' }
      case 2:
        return { position: b % (head + 1) }
      case 3:
        return { slice: b % 8, bitmap }
      case 4:
        return { checkpoint: `point-${b % 4}` }
      case 5:
        return b % 3 === 0 ? 'start' : 'active'
      default:
        return undefined
    }
  }

  /** Begins, and copies the extents as they are now. */
  async #beginNow(request: BeginRequest): Promise<string> {
    const id = `b${this.#ids++}`
    const backup = await this.#store.disk(DISK).beginBackup({ ...request, id })
    const { extents, base, point, complete } = backup.plan
    const units = this.#copied(extents)
    const whole = units.size === this.#content.length
    this.#real.set(point.position, [...this.#content])
    this.#running.set(id, {
      id,
      life: this.#life,
      low: base.kind === 'none' ? -1 : base.position,
      point: point.position,
      units,
      size: this.#content.length,
      whole,
      topWhole: whole,
      flawed: !whole && !complete,
      kept: true,
    })
    return id
  }

  #copied(extents: readonly PlanExtent[]): Map<number, number> {
    const units = new Map<number, number>()
    for (const { offset, length } of extents) {
      expect(offset % UNIT).toBe(0)
      for (let unit = offset / UNIT; unit < (offset + length) / UNIT; unit++)
        units.set(unit, this.#content[unit]!)
    }
    return units
  }

  async #end(a: number, b: number): Promise<void> {
    const copy = [...this.#running.values()][a % Math.max(1, this.#running.size)]
    if (copy === undefined) return
    const backup = this.#store.backup(copy.id)
    if (b % 5 === 4) await (b % 2 === 0 ? backup.cancel() : backup.fail('the target is full'))
    else {
      await backup.succeed()
      this.#copies.push(copy)
    }
    this.#running.delete(copy.id)
  }

  /** QMP's exception of R10: what was copied before the failure is lost with it, and the frozen bits shrink to the rest. */
  async #failPartly(a: number, b: number): Promise<void> {
    const copy = [...this.#running.values()][a % Math.max(1, this.#running.size)]
    if (copy === undefined) return
    const [first, count] = this.#range(a, b)
    const uncopied = [[first * UNIT, count * UNIT]] as const
    await this.#store.transaction([
      { type: 'fail-backup', backup: copy.id, reason: 'the target is full', uncopied },
    ])
    this.#running.delete(copy.id)
  }

  async #succeed(id: string): Promise<void> {
    await this.#store.backup(id).succeed()
    this.#copies.push(this.#running.get(id)!)
    this.#running.delete(id)
  }

  async #forget(a: number, b: number): Promise<void> {
    const copy = this.#copies[a % Math.max(1, this.#copies.length)]
    if (copy === undefined || (b % 3 === 0 && this.#copies.length < 4)) return
    let would = wouldBreak(this.#store, copy.id)
    if (b % 4 === 0 && would.combine.length > 0) {
      // What it advises is done first; then nothing but its own point may be lost.
      for (const of of would.combine) await this.#record(of.map((id) => this.#copy(id)))
      would = wouldBreak(this.#store, copy.id)
      expect(would.breaks, `combined before forgetting ${copy.id}`).toEqual([])
    }
    const before = this.#outcome(copy.life)
    const wasKept = copy.kept
    const answer = await this.#store.backup(copy.id).forget({ reason: 'expired' })
    expect(answer.changed).toBe(wasKept)
    if (wasKept) this.#forgotten.unshift(copy)
    copy.kept = false
    this.#compareLoss(would, before, this.#outcome(copy.life))
  }

  #compareLoss(
    would: WouldBreak,
    before: ReadonlyMap<number, Outcome>,
    after: ReadonlyMap<number, Outcome>,
  ): void {
    const lost = [...before].filter(([position, { state }]) => {
      const now = after.get(position)!.state
      return (state === 'whole' && now !== 'whole') || (state === 'doubtful' && now !== 'doubtful')
    })
    const told = [...would.loses, ...would.breaks].map(({ point }) => point.position)
    expect(told.sort((x, y) => x - y)).toEqual(lost.map(([position]) => position).sort((x, y) => x - y))
    this.#seen.wouldBreak += lost.length
  }

  async #combine(a: number, b: number, c: number): Promise<void> {
    if (this.#copies.length < 2) return
    const count = 2 + (c % 3)
    // Neighbours in time, most often: by chance alone hardly any would be a chain.
    const sorted = this.#copies.filter(({ kept }) => kept || c % 5 === 0).sort((x, y) => x.point - y.point)
    const start = a % Math.max(1, sorted.length)
    const of = sorted.slice(start, start + count)
    if (b % 5 === 0) of.reverse()
    await this.#record(of)
  }

  /** Tells the store; it must refuse exactly what the rule forbids. */
  async #record(of: readonly Copy[]): Promise<void> {
    const legal =
      of.length >= 2 &&
      of.every(({ kept }) => kept) &&
      of.every((copy, i) => {
        const below = of[i - 1]
        return (
          below === undefined ||
          (copy.life === below.life && copy.low <= below.point && below.point <= copy.point)
        )
      })
    const id = `c${this.#ids++}`
    const ids = of.map((copy) => copy.id)
    if (!legal) {
      const refusal = await this.#store.recordCombined(id, ids).then(
        () => null,
        (error: unknown) => error,
      )
      expect(refusal, ids.join()).toBeInstanceOf(CheckpointError)
      expect((refusal as CheckpointError).code).toBe('BACKUP_CHAIN')
      return
    }
    await this.#store.recordCombined(id, ids)
    const newest = of.at(-1)!
    const units = new Map(of.flatMap((copy) => [...copy.units]).filter(([unit]) => unit < newest.size))
    const lastWhole = of.findLastIndex(({ whole }) => whole)
    this.#copies.push({
      ...newest,
      id,
      low: of[0]!.low,
      units,
      whole: lastWhole !== -1,
      flawed:
        of.slice(lastWhole + 1).some(({ flawed }) => flawed) || (lastWhole !== -1 && of[lastWhole]!.flawed),
      kept: true,
    })
    this.#seen.combined += 1
    const plan = await this.#store.replayPlan(id)
    const planned = plan.extents.flatMap(({ offset, length }) =>
      Array.from({ length: length / UNIT }, (_, i) => offset / UNIT + i),
    )
    expect(planned, 'the plan of a combined backup is the union').toEqual(
      [...units.keys()].sort((x, y) => x - y),
    )
  }

  async #checkpoint(bitmap: string, b: number): Promise<void> {
    const name = `point-${b % 4}`
    if (this.#store.checkpoints().some((held) => held.name === name)) await this.#store.deleteCheckpoint(name)
    else await this.#store.createCheckpoint(name, b % 3 === 0 ? {} : { bitmaps: [{ disk: DISK, bitmap }] })
  }

  async #resize(a: number, b: number): Promise<void> {
    const units = 8 + (a % 16)
    await this.#store.disk(DISK).resize(units * UNIT)
    // What a disk grows by is nothing that anyone knows.
    const grown = Array.from({ length: Math.max(0, units - this.#content.length) }, () => ++this.#version)
    this.#content = [...this.#content.slice(0, units), ...grown]
    if (b % 2 === 0) await this.#write(a, b)
  }

  async #replaceDisk(a: number): Promise<void> {
    await this.tell()
    await this.#store.removeDisk(DISK)
    await this.#addDisk(12 + (a % 8))
  }

  #copy(id: string): Copy {
    const copy = this.#copies.find((held) => held.id === id)
    if (copy === undefined) throw new Error(`the model has no copy ${id}`)
    return copy
  }

  /** Every image that laying kept copies in a legal order gives, with the fewest layers for each. */
  #images(life: number): Image[] {
    const kept = this.#copies.filter((copy) => copy.life === life && copy.kept)
    const seen = new Map<string, Image>()
    let front: Image[] = kept
      .filter(({ whole }) => whole)
      .map((copy) => ({
        at: copy.point,
        content: laid(null, copy),
        flawed: copy.flawed,
        last: copy,
        layers: 1,
      }))
    while (front.length > 0) {
      const fresh = front.filter((image) => {
        const key = JSON.stringify([image.at, image.flawed, image.last.topWhole, image.content])
        if (seen.has(key)) return false
        seen.set(key, image)
        return true
      })
      front = fresh.flatMap((image) =>
        kept
          .filter((copy) => copy.low <= image.at && image.at <= copy.point)
          .map((copy) => ({
            at: copy.point,
            content: laid(image.content, copy),
            flawed: copy.flawed || (image.flawed && !copy.whole),
            last: copy,
            layers: image.layers + 1,
          })),
      )
    }
    return [...seen.values()]
  }

  #doubtful({ last }: Image): boolean {
    if (last.topWhole) return false
    return this.#told.some(({ life, from, to }) => life === last.life && from < last.point && last.point < to)
  }

  /** Takes losses back, newest first, until an unflawed chain to each point is there: the last one taken back broke it. */
  #breakers(): Map<number, string> {
    const own = ({ life, flawed }: Copy) => life === this.#life && !flawed
    const kept = this.#copies.filter((copy) => own(copy) && copy.kept)
    const breakers = new Map<number, string>()
    const before = reach(kept)
    for (const lost of this.#forgotten.filter(own)) {
      kept.push(lost)
      for (const at of reach(kept)) if (!before.has(at) && !breakers.has(at)) breakers.set(at, lost.id)
    }
    return breakers
  }

  /** What brute force says of every point of one life of the disk, and what it gives where that is sure. */
  #outcome(life: number): Map<number, Outcome> {
    const images = this.#images(life)
    const outcome = new Map<number, Outcome>()
    for (const { point } of this.#copies.filter((copy) => copy.life === life)) {
      const here = images.filter(({ at }) => at === point)
      const sure = here.filter((image) => !image.flawed && !this.#doubtful(image))
      const kept = this.#copies.some((copy) => copy.life === life && copy.point === point && copy.kept)
      const real = this.#real.get(point)!
      // The rule itself: whatever order is legal, sound copies give the disk as it was (once all is told).
      if (this.#silent === null)
        for (const image of sure) expect([point, image.content]).toEqual([point, real])
      const state: PointState =
        sure.length > 0 ? 'whole' : here.length > 0 ? 'doubtful' : kept ? 'broken' : 'gone'
      const wrong = here.filter((image) => JSON.stringify(image.content) !== JSON.stringify(real)).length
      outcome.set(point, {
        state,
        layers: Math.min(...sure.map(({ layers }) => layers)),
        here: here.length,
        wrong,
      })
    }
    return outcome
  }

  /** Coverage against brute force, point by point; then one of its repairs is made and must give what it promises. */
  async compare(choice: number): Promise<void> {
    await this.tell()
    const report = await coverage(this.#store, DISK)
    const outcome = this.#outcome(this.#life)
    const breakers = this.#breakers()
    expect(report.points.map(({ point }) => point.position)).toEqual(
      [...outcome.keys()].sort((x, y) => x - y),
    )
    for (const { point, state, chain, since } of report.points) {
      const expected = outcome.get(point.position)!
      expect([point.position, state]).toEqual([point.position, expected.state])
      this.#seen[state] += 1
      if (state === 'whole') {
        expect(chain).toHaveLength(expected.layers)
        expect([chain, this.#restored(chain)]).toEqual([chain, this.#real.get(point.position)])
      }
      if (state === 'doubtful') {
        this.#restored(chain)
        this.#seen.wrong += expected.wrong
        this.#seen.right += expected.here - expected.wrong
      }
      const by = breakers.get(point.position)
      if ((state === 'broken' || state === 'gone') && by !== undefined) {
        expect([point.position, since?.backup]).toEqual([point.position, by])
        this.#seen.breakers += 1
      }
    }
    const newest = Math.max(-1, ...outcome.keys())
    expect(report.covered).toBe(outcome.get(newest)?.state === 'whole')
    await this.#endRunning()
    await this.#carryOut(choice)
  }

  /** Lays the chain as reported, refusing what the rule forbids. */
  #restored(chain: readonly string[]): Content {
    let content: Content | null = null
    let at = -1
    for (const id of chain) {
      const copy = this.#copy(id)
      expect(copy.kept).toBe(true)
      if (content === null) expect(copy.whole, `${id} lies on nothing`).toBe(true)
      else expect(copy.low <= at && at <= copy.point, `${id} on @${at}`).toBe(true)
      content = laid(content, copy)
      at = copy.point
    }
    return content ?? []
  }

  async #endRunning(): Promise<void> {
    while (this.#running.size > 0) await this.#end(0, 4)
  }

  /** Every offer is made, one after the other; the first at once, so that it has the size that was promised. */
  async #carryOut(choice: number): Promise<void> {
    const { repairs, gaps, next } = await coverage(this.#store, DISK)
    const offers: Repair[] = [...repairs, ...gaps.flatMap(({ recreate }) => recreate)]
    const turn = choice % Math.max(1, offers.length)
    for (const [i, offer] of [...offers.slice(turn), ...offers.slice(0, turn)].entries()) {
      if (i > 0) await this.#write(choice + i, choice)
      const id = await this.#made(offer.request, i > 0)
      if (id === null) continue
      if (i === 0) expect(this.#store.backup(id).info.bytes).toBe(offer.bytes)
      expect([offer, this.#restored([...offer.chain, id])]).toEqual([offer, this.#content])
      await this.#nowWhole(id)
      this.#seen[offer.kind === 'recreate' ? 'recreated' : 'repaired'] += 1
    }
    if (offers.length > 0) return
    for (const { continues, request } of next.slice(choice % NAMES.length)) {
      if (request === null || !continues) continue
      await this.#write(choice, choice)
      const id = await this.#made({ ...request, forceCycle: true }, false)
      await this.#nowWhole(id!)
      this.#seen.continued += 1
      return
    }
  }

  /** Null: refused, as may happen once another offer took the room. */
  async #made(request: BeginRequest, mayBeRefused: boolean): Promise<string | null> {
    try {
      const id = await this.#beginNow(request)
      await this.#succeed(id)
      return id
    } catch (error) {
      if (mayBeRefused && error instanceof CheckpointError) return null
      throw error
    }
  }

  async #nowWhole(id: string): Promise<void> {
    const report = await coverage(this.#store, DISK)
    const { position } = this.#store.backup(id).info.point
    expect([id, report.newest?.point.position, report.covered]).toEqual([id, position, true])
    expect(this.#restored(report.newest!.chain)).toEqual([...this.#content])
    expect(report.gaps.some(({ open }) => open)).toBe(false)
  }
}

interface Outcome {
  readonly state: PointState
  /** Fewest images of a sure chain. */
  readonly layers: number
  readonly here: number
  readonly wrong: number
}

/** Points that laying in any legal order reaches. */
function reach(copies: readonly Copy[]): Set<number> {
  const reached = new Set<number>()
  for (let grown = true; grown; ) {
    grown = false
    for (const copy of copies) {
      if (reached.has(copy.point)) continue
      if (!copy.whole && ![...reached].some((at) => copy.low <= at && at <= copy.point)) continue
      reached.add(copy.point)
      grown = true
    }
  }
  return reached
}

/** A copy on an image, or on nothing. */
function laid(image: Content | null, copy: Copy): Content {
  return Array.from({ length: copy.size }, (_, unit) => copy.units.get(unit) ?? image?.[unit] ?? -1)
}
