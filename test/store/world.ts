/** A real store and its naive model driven together: every step is done on both, and every answer is compared. */
import { expect } from 'vitest'
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
  Naive,
  type NaiveLog,
  type NaiveState,
  Refusal,
} from './naive.ts'

interface View {
  readonly from: number
  readonly to: number
  readonly text: string
}

export class World {
  store: Store
  readonly clock: ManualClock
  readonly log: NaiveLog = { writes: [], times: [], ends: [] }
  state: NaiveState = emptyState()
  /** Disks attached by this session. */
  session = new Set<string>()
  /** What the whole state looked like after every position. */
  readonly views: View[] = []
  readonly counts = { steps: 0, refused: 0, plans: 0, exact: 0, past: 0, changed: 0, opens: 0 }

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
      this.naive.attach(disk, this.state.disks.get(disk)!.attached, false, first - 1)
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
    const { size, attached } = this.state.disks.get(disk)!
    await this.store.ensureDisk(disk, { size, quiet })
    if (!this.session.has(disk)) this.naive.attach(disk, attached, quiet, this.head)
    this.session.add(disk)
    await this.landed(head)
  }

  async detach(disk: string): Promise<void> {
    const head = this.head
    await this.store.disk(disk).detach()
    this.naive.detach(disk, this.head, !this.session.has(disk))
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
    for (const disk of this.state.disks.values()) disk.heard = disk.last
    for (let position = head + 1; position <= end; position++) {
      this.log.times.push(this.clock.now())
      this.log.ends.push(end)
    }
    if (end > head) this.views.push({ from: head + 1, to: end, text: this.expected() })
    this.naive.interrupt(this.head)
    await this.landed(end)
  }

  /** R22: any position is answered as it was then. */
  async past(position: number): Promise<void> {
    this.counts.past++
    const view = this.views.find(({ from, to }) => from <= position && position <= to)!
    const past = await this.store.at({ position })
    expect(past.point.position).toBe(view.to)
    expect(await viewOf(past), `R22: at position ${position}`).toBe(view.text)
  }

  /** R22: a time means after the last event that is not later. */
  async pastTime(time: number): Promise<void> {
    const last = this.log.times.findLastIndex((candidate) => candidate <= time)
    const past = await this.store.at({ time })
    expect(past.point.position).toBe(last)
    if (last >= 0)
      expect(await viewOf(past)).toBe(this.views.find(({ from, to }) => from <= last && last <= to)!.text)
  }

  /** R23, R24, R35. */
  async changed(disk: string, since: number, until: number, granularity: number): Promise<void> {
    this.counts.changed++
    const from = since < 0 ? -1 : this.log.ends[since]!
    const to = this.log.ends[until]!
    const naive = this.state.disks.get(disk)!
    if (to < naive.added || from > to) return
    const size = naive.resizes.findLast(({ at }) => at <= to)?.after ?? naive.resizes[0]?.before ?? naive.size
    const lost = naive.lost.filter((stretch) => stretch.to > from && stretch.from < to)
    const whole = from < naive.added || lost.length > 0
    const bits = whole
      ? allOf(size, granularity)
      : new Set(
          this.log.writes
            .filter((write) => write.disk === disk && write.position > from && write.position <= to)
            .flatMap((write) => granulesOf(write.offset, write.length, granularity, size)),
        )
    const answer = await this.store.changed(disk, {
      since: since < 0 ? 'start' : { position: since },
      until: { position: until },
      granularity,
    })
    expect(answer.digest, `R23: changed ${disk} ${since}..${until} at ${granularity}`).toBe(
      digestOf(bits, size, granularity),
    )
    expect(answer).toMatchObject({
      complete: !whole,
      resolution: 'exact',
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
      const { naive } = this
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
      expect({ digest: plan.digest, bytes: plan.bytes, complete: plan.complete }).toEqual({
        digest: backup.digest,
        bytes: backup.bytes,
        complete: backup.complete,
      })
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
    lines.push(`backup ${backup.id} ${backup.state} ${backup.point.position}`)
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
          `    ${slice.number} ${slice.start}-${slice.end} ${slice.bits.size * g} ${digestOf(slice.bits, disk.size, g)} lost ${[...slice.lost].sort()}`,
        )
      }
    }
  }
  for (const backup of state.backups.values())
    lines.push(`backup ${backup.id} ${backup.state} ${backup.point}`)
  for (const [name, checkpoint] of state.checkpoints) lines.push(`checkpoint ${name} ${checkpoint.point}`)
  return lines.join('\n')
}
