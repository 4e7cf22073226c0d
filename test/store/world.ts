/** A real store and its naive model driven together: every step is done on both, and every answer is compared. */
import { expect } from 'vitest'
import type { LogWindow } from '../../events/types.ts'
import {
  type BitmapInfo,
  CheckpointError,
  type Plan,
  parseSince,
  type SinceInput,
  type StateView,
  type Store,
  type StoreCommand,
  type WriteRange,
} from '../../src/index.ts'
import type { ManualClock } from '../../src/testing/clock.ts'
import {
  allOf,
  digestOf,
  type ExpectedPlan,
  emptyState,
  granulesOf,
  granulesWritten,
  Naive,
  type NaiveLog,
  type NaiveState,
  placeOf,
  Refusal,
  windowAround,
} from './naive.ts'
import { checkWindows, pointsOf } from './naive-windows.ts'

interface View {
  readonly from: number
  readonly to: number
  readonly text: string
}

/** What a proof tells of itself: so much was done and compared. */
export const noCounts = () => ({
  steps: 0,
  refused: 0,
  plans: 0,
  exact: 0,
  past: 0,
  changed: 0,
  opens: 0,
  windows: 0,
  folded: 0,
  copies: 0,
  told: 0,
})

export class World {
  store: Store
  readonly clock: ManualClock
  readonly log: NaiveLog = { writes: [], times: [], ends: [], windows: [] }
  state: NaiveState = emptyState()
  /** Disks attached by this session. */
  session = new Set<string>()
  /** What the whole state looked like after every position. */
  readonly views: View[] = []
  readonly counts = noCounts()

  constructor(store: Store, clock: ManualClock) {
    this.store = store
    this.clock = clock
  }

  get head(): number {
    return this.store.head.position
  }

  get naive(): Naive {
    return new Naive(this.state, this.log)
  }

  /** Does commands on both: equal refusals, or equal states and plans. */
  async run(commands: readonly StoreCommand[]): Promise<Map<string, ExpectedPlan> | string> {
    this.counts.steps++
    const before = await fingerprint(this.store)
    const head = this.head
    const draft = new Naive(structuredClone(this.state), this.log)
    let code: string | undefined
    let answers: readonly unknown[] = []
    try {
      answers = await this.store.transaction(commands)
    } catch (error) {
      code = refusalCode(error)
      await this.#giveWhatWasAskedFor(error, commands)
    }
    const generations = answers.map((answer) => (answer as { generation?: number }).generation)
    let plans: Map<string, ExpectedPlan>
    try {
      plans = draft.transaction(commands, code === undefined ? this.head : head + 1, generations)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      expect(code, `R21: refused by the rules: ${JSON.stringify(commands)}`).toBe(error.code)
      expect(await fingerprint(this.store), `R21: ${JSON.stringify(commands)}`).toBe(before)
      this.counts.refused++
      this.tally(commands, error.code)
      return error.code
    }
    expect(code, `legal by the rules: ${JSON.stringify(commands)}`).toBeUndefined()
    if (commands.every(({ type }) => type !== 'declare-lost'))
      this.counts.told += lostIn(draft.state) - lostIn(this.state)
    this.state = draft.state
    this.tally(commands, 'done')
    await this.landed(head)
    for (const [id, plan] of plans) {
      const backup = this.store.backup(id)
      this.checkPlan(await backup.loadPlan(), plan, JSON.stringify(commands))
      expect(backup.plan.digest, 'R26').toBe(backup.info.digest)
    }
    return plans
  }

  /** R12: what a refusal tells to give is accepted. */
  async #giveWhatWasAskedFor(error: unknown, commands: readonly StoreCommand[]): Promise<void> {
    if (!(error instanceof CheckpointError) || error.code !== 'SINCE_REQUIRED') return
    const command = commands.find((candidate) => candidate.type === 'begin-backup')
    if (command?.type !== 'begin-backup' || commands.length > 1) return
    await this.plan({
      disk: command.disk,
      bitmap: command.bitmap,
      mode: command.mode,
      since: parseSince(String(error.facts.give)),
      forceCycle: true,
    })
  }

  /** Events after `head` are one record of commands. */
  async landed(head: number): Promise<void> {
    for (let position = head + 1; position <= this.head; position++) {
      this.log.times.push(this.clock.now())
      this.log.ends.push(this.head)
    }
    expect(this.store.head.time).toBe(this.log.times.at(-1) ?? null)
    const text = await viewOf(this.store)
    expect(text).toBe(this.expected())
    if (this.head > head) this.views.push({ from: head + 1, to: this.head, text })
  }

  async write(disk: string, ranges: readonly WriteRange[]): Promise<void> {
    this.counts.steps++
    const head = this.head
    const size = this.state.disks.get(disk)!.size
    const before = await fingerprint(this.store)
    if (ranges.some(({ offset, length }) => offset + length > size)) {
      await expect(this.store.disk(disk).recordWrites(ranges)).rejects.toMatchObject({
        code: 'RANGE_OUTSIDE_DISK',
      })
      expect(await fingerprint(this.store), 'R21').toBe(before)
      this.counts.refused++
      return
    }
    const { first, count } = await this.store.disk(disk).recordWrites(ranges)
    const real = ranges.filter(({ length }) => length > 0)
    expect(count).toBe(real.length)
    if (!this.session.has(disk)) {
      this.naive.attach(disk, false, first - 1)
      this.session.add(disk)
      for (let position = head + 1; position < first; position++) {
        this.log.times.push(this.clock.now())
        this.log.ends.push(first - 1)
      }
      this.views.push({ from: head + 1, to: first - 1, text: this.expected() })
    } else expect(first).toBe(head + 1)
    real.forEach(({ offset, length }, i) => {
      this.naive.write(disk, first + i, offset, length)
      this.log.writes.push({ disk, position: first + i, offset, length })
      this.log.times.push(this.clock.now())
      this.log.ends.push(first + i)
      this.views.push({ from: first + i, to: first + i, text: this.expected() })
    })
    expect(this.head).toBe(this.log.times.length - 1)
    expect(await viewOf(this.store)).toBe(this.expected())
  }

  async attach(disk: string, quiet: boolean): Promise<void> {
    const head = this.head
    const { size } = this.state.disks.get(disk)!
    await this.store.ensureDisk(disk, { size, quiet })
    if (!this.session.has(disk)) this.naive.attach(disk, quiet, this.head)
    this.session.add(disk)
    await this.landed(head)
  }

  async detach(disk: string): Promise<void> {
    const head = this.head
    await this.store.disk(disk).detach()
    this.naive.detach(disk, this.head)
    this.session.delete(disk)
    await this.landed(head)
  }

  /** The store was closed (cleanly: its disks are detached) or killed, and this is what opened after it. */
  async reopened(store: Store, clean: boolean): Promise<void> {
    this.counts.opens++
    const head = this.log.times.length - 1
    this.store = store
    const closed = clean && this.session.size > 0
    const interrupted = [...this.state.backups.values()].filter(
      (backup) => backup.state === 'running' && backup.copiedBy === 'store',
    ).length
    const end = this.head - interrupted
    if (closed) for (const disk of this.session) this.naive.detach(disk, end)
    this.session = new Set()
    this.naive.opened()
    for (let position = head + 1; position <= end; position++) {
      this.log.times.push(this.clock.now())
      this.log.ends.push(end)
    }
    if (end > head) this.views.push({ from: head + 1, to: end, text: this.expected() })
    this.naive.interrupt()
    await this.landed(end)
  }

  /** R22, R29: any position is answered as it was then; inside a window, as it was at the window's end. */
  async past(position: number): Promise<void> {
    this.counts.past++
    const view = this.#viewAt(placeOf(this.log, position, 'at'))
    const past = await this.store.at({ position })
    expect(past.point.position).toBe(view.to)
    expect(await viewOf(past), `R22: at position ${position}`).toBe(view.text)
  }

  /** R22: a time means after the last event that is not later. */
  async pastTime(time: number): Promise<void> {
    const index = this.log.times.findLastIndex((candidate) => candidate <= time)
    const last = index < 0 ? -1 : placeOf(this.log, index, 'at')
    const past = await this.store.at({ time })
    expect(past.point.position).toBe(last)
    if (last >= 0) expect(await viewOf(past)).toBe(this.#viewAt(last).text)
  }

  #viewAt(position: number): View {
    return this.views.find(({ from, to }) => from <= position && position <= to)!
  }

  /** R23, R24, R29, R32, R35. `until` null: now. */
  async changed(disk: string, since: number, until: number | null, granularity: number): Promise<void> {
    this.counts.changed++
    const from = since < 0 ? -1 : placeOf(this.log, since, 'since')
    const to = until === null ? this.head : placeOf(this.log, until, 'at')
    const naive = this.state.disks.get(disk)!
    if (to < naive.added || from > to) return
    const size = naive.resizes.findLast(({ at }) => at <= to)?.after ?? naive.resizes[0]?.before ?? naive.size
    const lost = naive.lost.filter((stretch) => stretch.to > from && stretch.from < to)
    // What nobody told yet goes on until this very moment, so it is behind every base, and reaches into all that ends behind its start.
    if (naive.unknown !== null && (until === null || naive.unknown < to))
      lost.push({ from: naive.unknown, to: this.head + 1, why: 'unclean' })
    const snapped = [since, until].some(
      (point) => point !== null && windowAround(this.log, point) !== undefined,
    )
    const whole = from < naive.added || lost.length > 0
    const bits = whole
      ? allOf(size, granularity)
      : new Set(
          this.log.writes
            .filter((write) => write.disk === disk && write.position > from && write.position <= to)
            .flatMap((write) => granulesWritten(write.offset, write.length, granularity, size)),
        )
    const answer = await this.store.changed(disk, {
      since: since < 0 ? 'start' : { position: since },
      ...(until === null ? {} : { until: { position: until } }),
      granularity,
    })
    expect(answer.digest, `R23: changed ${disk} ${since}..${until} at ${granularity}`).toBe(
      digestOf(bits, size, granularity),
    )
    expect(answer).toMatchObject({
      complete: !whole,
      resolution: snapped ? 'window' : 'exact',
      since: { position: from },
      until: { position: to },
    })
    expect(answer.lost.map((stretch) => stretch.to.position).sort()).toEqual(
      lost.map((stretch) => stretch.to).sort(),
    )
    checkExtents(answer.extents, answer.bytes, bits, size, granularity)
  }

  /** R11, R25: a dry run changes nothing and says what a begin would. */
  async plan(request: {
    disk: string
    bitmap: string
    mode: 'full' | 'incremental' | 'differential' | 'copy'
    since?: SinceInput
    forceCycle?: boolean
  }): Promise<void> {
    const head = this.store.head.hash
    let code: string | undefined
    let plan: Plan | undefined
    try {
      plan = await this.store.plan(request)
    } catch (error) {
      code = refusalCode(error)
    }
    expect(this.store.head.hash, 'R25: a dry run records nothing').toBe(head)
    let expected: ExpectedPlan
    try {
      // A begin would come next, and would have to know what nobody told yet (R32).
      const naive = new Naive(structuredClone(this.state), this.log)
      const disk = naive.disk(request.disk)
      naive.tell(disk, this.head + 1)
      expected = naive.plan(
        request,
        request.since === undefined ? undefined : naive.resolve(request.since, request.disk, request.bitmap),
      )
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      expect(code, `plan ${JSON.stringify(request)}`).toBe(error.code)
      return
    }
    expect(code, `plan ${JSON.stringify(request)}`).toBeUndefined()
    this.checkPlan(plan!, expected, JSON.stringify(request))
  }

  checkPlan(plan: Plan, expected: ExpectedPlan, what: string): void {
    this.counts.plans++
    const { size } = this.state.disks.get(plan.disk)!
    const held = new Set(
      plan.extents.flatMap(({ offset, length }) => granulesOf(offset, length, plan.granularity, size)),
    )
    const missing = [...expected.bits].filter((granule) => !held.has(granule))
    expect(missing, `R11: missing from ${what}: ${plan.reason}`).toEqual([])
    if (expected.exact) {
      this.counts.exact++
      expect(plan.digest, `R16, R26: equal to the replay: ${what}: ${plan.reason}`).toBe(
        digestOf(expected.bits, size, plan.granularity),
      )
    }
    expect(plan.complete, what).toBe(expected.complete)
    expect(plan.digest).toBe(digestOf(held, size, plan.granularity))
    checkExtents(plan.extents, plan.bytes, held, size, plan.granularity)
  }

  /** R26: every backup there ever was, from the log alone. */
  async replayAll(): Promise<void> {
    for (const backup of this.store.backups()) {
      const plan = await this.store.replayPlan(backup.id)
      if (backup.of !== null) {
        expect(plan.bytes, `${backup.id} combines ${backup.of.join()}`).toBeLessThanOrEqual(backup.bytes)
        continue
      }
      expect({ digest: plan.digest, bytes: plan.bytes, complete: plan.complete }).toEqual({
        digest: backup.digest,
        bytes: backup.bytes,
        complete: backup.complete,
      })
    }
  }

  /**
   * R29: after a compaction every digest, slice, plan and past view at every event that is no write is what it was, and a point
   * inside a window is its start or its end.
   */
  async compact(policy: readonly { olderThan: number; window: number }[]): Promise<void> {
    const head = this.head
    const points = pointsOf(this.state)
    const before = await this.#dryPlans()
    await this.store.compact({ policy })
    for (let position = head + 1; position <= this.head; position++) {
      this.log.times.push(this.clock.now())
      this.log.ends.push(position)
      this.views.push({ from: position, to: position, text: this.expected() })
    }
    expect(await viewOf(this.store), 'R29: now').toBe(this.expected())
    const windows = checkWindows(this.log, await windowsOf(this.store), {
      points,
      policy,
      now: this.clock.now(),
    })
    const fresh = windows.filter(({ first, last }) => {
      const known = this.log.windows.some((window) => window.first === first && window.last === last)
      return !known && first < last
    })
    expect(this.head > head, 'R29: no event without a window, no window without an event').toBe(
      windows.length !== this.log.windows.length || fresh.length > 0,
    )
    this.log.windows = windows
    if (this.head === head) return
    this.counts.windows += fresh.length
    for (const { first, last } of fresh) this.counts.folded += last - first + 1
    expect(await this.#dryPlans(), 'R29: plans').toEqual(before)
    await this.replayAll()
    const writes = new Set(this.log.writes.map(({ position }) => position))
    for (const { to } of this.views) if (!writes.has(to) && to % 3 === head % 3) await this.past(to)
    for (const { first, last } of fresh.slice(0, 3)) {
      for (const disk of this.state.disks.keys()) {
        await this.changed(disk, first, last, 512)
        await this.changed(disk, -1, first, 4096)
      }
      await this.past(first)
      await this.pastTime(this.log.times[first]!)
    }
  }

  /** Of every slice that there is, and of α. */
  async #dryPlans(): Promise<unknown[]> {
    const plans: unknown[] = []
    for (const { id, bitmaps } of this.state.disks.values()) {
      for (const { name, slices } of bitmaps.values()) {
        for (const since of [...slices.map(({ number }) => ({ slice: number })), 'active' as const]) {
          const plan = await this.store.plan({ disk: id, bitmap: name, mode: 'differential', since })
          plans.push([id, name, since, plan.digest, plan.bytes, plan.complete, plan.extents])
        }
      }
    }
    return plans
  }

  /** A copy taken now opens as the store would after a clean end, and remembers the same. */
  async copy(folder: string, open: (folder: string) => Promise<Store>): Promise<void> {
    this.counts.copies++
    const { hash, position } = this.store.head
    const copied = await this.store.copyTo(folder)
    expect(copied.head).toMatchObject({ hash, position })
    expect(this.store.head.hash, 'copying records nothing').toBe(hash)
    const copy = await open(folder)
    try {
      const draft = new Naive(structuredClone(this.state), this.log)
      draft.interrupt()
      expect(await viewOf(copy)).toBe(expectedView(draft.state))
      for (let at = 0; at < position; at += 13) {
        const { text, to } = this.#viewAt(placeOf(this.log, at, 'at'))
        const past = await copy.at({ position: at })
        expect(past.point.position).toBe(to)
        expect(await viewOf(past), `at position ${at} of the copy`).toBe(text)
      }
      for (const { id, digest, of } of this.store.backups())
        if (of === null) expect((await copy.replayPlan(id)).digest).toBe(digest)
    } finally {
      await copy.close()
    }
  }

  /** How often each command met each end: a proof that never reaches a rule proves nothing about it. */
  readonly tallies = new Map<string, number>()

  private tally(commands: readonly StoreCommand[], end: string): void {
    const key = `${commands.length === 1 ? commands[0]!.type : 'transaction'} ${end}`
    this.tallies.set(key, (this.tallies.get(key) ?? 0) + 1)
  }

  expected(): string {
    return expectedView(this.state)
  }
}

async function windowsOf(store: Store): Promise<LogWindow[]> {
  const windows: LogWindow[] = []
  for await (const records of store.records())
    for (const record of records) if (record.kind === 'windows') windows.push(...record.windows)
  return windows
}

function lostIn(state: NaiveState): number {
  return [...state.disks.values()].reduce((sum, { lost }) => sum + lost.length, 0)
}

function refusalCode(error: unknown): string {
  if (error instanceof CheckpointError) return error.code
  throw error
}

function checkExtents(
  extents: Plan['extents'],
  bytes: number,
  bits: ReadonlySet<number>,
  size: number,
  granularity: number,
): void {
  let end = -1
  let sum = 0
  for (const { offset, length } of extents) {
    expect(offset, 'ascending, joined').toBeGreaterThan(end)
    expect(length).toBeGreaterThan(0)
    end = offset + length
    sum += length
  }
  expect(end).toBeLessThanOrEqual(size)
  expect(bytes).toBe(sum)
  let naive = 0
  for (const granule of bits) naive += Math.min(granularity, size - granule * granularity)
  expect(bytes).toBe(naive)
}

/** R21's list: every digest, slice, count and the log's head. */
export async function fingerprint(store: Store): Promise<string> {
  return `${store.head.hash} ${await viewOf(store)}`
}

export async function viewOf(view: StateView): Promise<string> {
  const lines: string[] = []
  for (const { disk, size } of view.disks()) {
    lines.push(`disk ${disk} ${size}`)
    for (const info of view.bitmaps(disk)) lines.push(...(await bitmapLines(view, disk, info)))
  }
  for (const backup of view.backups())
    lines.push(
      `backup ${backup.id} ${backup.state} ${backup.point.position} ${backup.copy.kind} ${backup.of ?? '-'}`,
    )
  for (const checkpoint of view.checkpoints())
    lines.push(`checkpoint ${checkpoint.name} ${checkpoint.point.position}`)
  return lines.join('\n')
}

async function bitmapLines(view: StateView, disk: string, info: BitmapInfo): Promise<string[]> {
  const bits = await view.bits(disk, info.bitmap)
  const { slices, next, generation } = await view.slices(disk, info.bitmap)
  expect(generation).toBe(info.generation)
  return [
    `  ${info.bitmap} ${info.granularity} g${generation} r${info.retention} ${info.recording} ${info.busy} next ${next} count ${bits.count} ${bits.digest} ${bits.successorCount ?? '-'}`,
    ...slices.map(
      (slice) =>
        `    ${slice.slice} ${slice.from.position}-${slice.to.position} ${slice.count} ${slice.digest} lost ${slice.lost.map(({ to }) => to.position).sort()}`,
    ),
  ]
}

function expectedView(state: NaiveState): string {
  const lines: string[] = []
  for (const disk of state.disks.values()) {
    lines.push(`disk ${disk.id} ${disk.size}`)
    for (const bitmap of disk.bitmaps.values()) {
      const { active, successor, granularity: g } = bitmap
      lines.push(
        `  ${bitmap.name} ${g} g${bitmap.generation} r${bitmap.retention} ${bitmap.recording} ${bitmap.holder !== null} next ${active.number} count ${active.bits.size * g} ${digestOf(active.bits, disk.size, g)} ${successor === null ? '-' : successor.bits.size * g}`,
      )
      for (const slice of bitmap.slices) {
        lines.push(
          `    ${slice.number} ${slice.start}-${slice.end} ${slice.bits.size * g} ${digestOf(slice.bits, disk.size, g)} lost ${[...slice.lost].map(({ to }) => to).sort()}`,
        )
      }
    }
  }
  for (const backup of state.backups.values())
    lines.push(`backup ${backup.id} ${backup.state} ${backup.point} ${backup.copy} ${backup.of ?? '-'}`)
  for (const [name, checkpoint] of state.checkpoints) lines.push(`checkpoint ${name} ${checkpoint.point}`)
  return lines.join('\n')
}
