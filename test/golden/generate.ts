/**
 * Random sequences of steps by seed, in profiles that press on one thing each. The generator looks at the state after
 * the last step, so most steps hit something that exists, and some are refused on purpose. Two requests kill QEMU 7.2
 * and are never made: a merge from nothing, and a transaction that enables a bitmap which is missing or being removed.
 */
import { prng } from '../support/property.ts'
import type { BitmapStep, Expectation, JobMode, Step, StreamView } from './format.ts'

export type Profile = 'prims' | 'gran' | 'txn' | 'slices' | 'resize' | 'persist' | 'jobs'
export const PROFILES: readonly Profile[] = ['prims', 'gran', 'txn', 'slices', 'resize', 'persist', 'jobs']

const KiB = 1024
const MiB = 1024 * KiB
const SECTOR = 512
const SIZES = [
  MiB,
  1_049_088,
  1_050_112,
  3_185_152,
  5_246_976,
  16_776_704,
  20 * MiB + SECTOR,
  64 * MiB,
  100 * MiB,
  349_176_832,
]
const GRANULARITIES = [512, 1024, 4 * KiB, 16 * KiB, 64 * KiB, 128 * KiB, MiB, 2 * MiB]
const LENGTHS = [1, 2, 511, 512, 513, 1024, 4096, 4097, 8191, 8192, 65_535, 65_536, 65_537, 131_072]
const NAMES = ['b0', 'b1', 'b2', 'b3', 'ünï/code: name']

export class Generator {
  readonly #profile: Profile
  readonly #random: () => number
  readonly disk: { size: number; format: 'raw' | 'qcow2' }
  #size: number
  #jobMode: JobMode | undefined

  constructor(profile: Profile, seed: number) {
    this.#profile = profile
    this.#random = prng(seed)
    this.disk = { size: this.#pick(SIZES), format: profile === 'persist' ? 'qcow2' : 'raw' }
    this.#size = this.disk.size
  }

  /** Whether this profile makes bitmaps with slices. */
  get withStreams(): boolean {
    return this.#profile === 'slices'
  }

  /** The next step, given what is there after the last one. */
  next(state: Expectation): Step {
    const names = Object.keys(state.bitmaps ?? {})
    const streams = state.streams ?? {}
    if (this.withStreams && Object.keys(streams).length === 0) return this.#create('main')
    const special = this.#special(state, names)
    if (special !== undefined) return special
    if (this.withStreams && this.#random() < 0.5) return this.#streamStep(streams)
    return this.#random() < 0.45 || (this.withStreams && names.length > 0)
      ? this.#diskStep(jobRuns(state))
      : this.#bitmapStep(names)
  }

  /** The step that the profile is about, now and then. */
  #special(state: Expectation, names: readonly string[]): Step | undefined {
    const chance = this.#random()
    switch (this.#profile) {
      case 'txn':
        return chance < 0.5 && names.length > 0 ? this.#transaction(names) : undefined
      case 'resize':
        if (chance >= 0.12) return undefined
        this.#size = this.#newSize()
        return { op: 'resize', size: this.#size }
      case 'persist':
        return chance < 0.08 ? { op: 'restart' } : undefined
      case 'jobs':
        return this.#jobStep(state, chance)
      case 'prims':
      case 'gran':
      case 'slices':
        return undefined
    }
  }

  /** One job at a time. A cancelled one of mode `always` would keep what it copied, which depends on timing. */
  #jobStep(state: Expectation, chance: number): Step | undefined {
    if (jobRuns(state)) {
      if (chance >= 0.2) return undefined
      return { op: 'job-end', outcome: this.#jobMode !== 'always' && this.#random() < 0.4 ? 'cancel' : 'ok' }
    }
    const names = Object.keys(state.bitmaps ?? {})
    if (chance >= 0.25 || names.length === 0) return undefined
    const sync = this.#pick(['incremental', 'bitmap', 'bitmap', 'full', 'none'])
    const mode = this.#pick(['on-success', 'on-success', 'never', 'always', undefined] as const)
    this.#jobMode = mode
    const bitmap = chance < 0.01 ? 'missing' : this.#pick(names)
    return { op: 'job-start', bitmap, sync, ...(mode === undefined ? {} : { mode }) }
  }

  #newSize(): number {
    const change = this.#pick([SECTOR, -SECTOR, 64 * KiB, -64 * KiB, MiB, -MiB, -this.#size / 2, this.#size])
    return Math.max(MiB, Math.min(512 * MiB, Math.floor((this.#size + change) / SECTOR) * SECTOR))
  }

  /** A running job's copy-before-write filter swallows trims, so none are made then. */
  #diskStep(held: boolean): Step {
    const chance = this.#random()
    if (chance < 0.04) return { op: 'flush' }
    if (chance < 0.08)
      return { op: 'read', offset: this.#below(this.#size / SECTOR) * SECTOR, length: SECTOR }
    const [offset, length] = this.#range()
    const op = chance < 0.25 ? 'zero' : chance < 0.42 && !held ? 'trim' : 'write'
    return op === 'write' && chance > 0.9 ? { op, offset, length, flags: 1 } : { op, offset, length }
  }

  /** Starts, ends, granule edges, odd bytes; now and then nothing at all or past the end. */
  #range(): [number, number] {
    const chance = this.#random()
    if (chance < 0.04) return [this.#pick([0, this.#size, this.#size + 1]), 0]
    if (chance < 0.1) return [this.#size - this.#pick([0, 1, 512]), this.#pick([2, 513, 4096])]
    if (chance < 0.14) return [0, Math.min(this.#size, 4 * MiB)]
    const length = Math.min(
      this.#size,
      chance < 0.8 ? this.#pick(LENGTHS) : 1 + this.#below(Math.min(this.#size, 4 * MiB)),
    )
    const last = this.#size - length
    const edge = this.#random()
    if (edge < 0.15) return [0, length]
    if (edge < 0.35) return [last, length]
    const unit = edge < 0.6 ? this.#pick([512, 4096, 65_536]) : 1
    const jitter = edge < 0.5 ? this.#pick([-1, 0, 1]) : 0
    return [Math.max(0, Math.min(last, this.#below(last / unit + 1) * unit + jitter)), length]
  }

  #bitmapStep(names: readonly string[]): Step {
    const chance = this.#random()
    if (names.length === 0 || chance < 0.28) return this.#add(names)
    const name = chance > 0.95 ? 'missing' : this.#pick(names)
    if (chance < 0.58) return this.#merge(names)
    if (chance < 0.69) return { op: 'disable', name }
    if (chance < 0.81) return { op: 'enable', name }
    if (chance < 0.91) return { op: 'clear', name }
    return { op: 'remove', name }
  }

  #add(names: readonly string[]): BitmapStep {
    const chance = this.#random()
    if (chance < 0.04) return { op: 'add', name: this.#pick(['', 'n'.repeat(1024), `é${'n'.repeat(1022)}`]) }
    if (chance < 0.08) return { op: 'add', name: 'bad', granularity: this.#pick([0, 256, 1536, 64_000]) }
    if (chance < 0.12 && names.length > 0) return { op: 'add', name: this.#pick(names) }
    const granularity = this.#pick(GRANULARITIES)
    const free = NAMES.filter((name) => !names.includes(name))
    const own = this.#pick(free.length > 0 && this.#random() < 0.75 ? free : NAMES)
    const name = this.#profile === 'gran' ? `g${granularity}` : own
    return {
      op: 'add',
      name,
      ...(this.#random() < 0.75 || this.#profile === 'gran' ? { granularity } : {}),
      ...(this.#random() < 0.2 ? { disabled: true } : {}),
      ...(this.#profile === 'persist' && this.#random() < 0.6 ? { persistent: true } : {}),
    }
  }

  #merge(names: readonly string[]): BitmapStep {
    const count = 1 + this.#below(3)
    const bitmaps = Array.from({ length: count }, () =>
      this.#random() < 0.06 ? 'missing' : this.#pick(names),
    )
    return { op: 'merge', target: this.#random() < 0.04 ? 'missing' : this.#pick(names), bitmaps }
  }

  #transaction(names: readonly string[]): Step {
    const actions: BitmapStep[] = []
    const removed = new Set<string>()
    for (let left = 1 + this.#below(4); left > 0; left--) {
      const step = this.#bitmapStep(names) as BitmapStep
      const kills = step.op === 'enable' && (removed.has(step.name) || !names.includes(step.name))
      if (kills) continue
      if (step.op === 'remove') removed.add(step.name)
      actions.push(step)
    }
    return { op: 'transaction', actions }
  }

  #create(name: string): Step {
    return {
      op: 'stream-create',
      name,
      granularity: this.#pick(GRANULARITIES),
      retention: this.#pick([0, 1, 2, 3, 4, 8, 8]),
    }
  }

  #streamStep(streams: Readonly<Record<string, StreamView>>): Step {
    const names = Object.keys(streams)
    const name = this.#pick(names)
    const stream = streams[name]!
    const chance = this.#random()
    if (chance < 0.06) return this.#create(this.#pick(['main', 'side']))
    if (chance < 0.1) return { op: 'backup-end', name: this.#pick([...names, 'nosuch']), outcome: 'ok' }
    if (chance < 0.15) return this.#setRetention(name, stream)
    const force = this.#random() < 0.4 ? { force_cycle: true } : {}
    if (stream.frozen !== null) {
      if (chance < 0.2) return { op: 'bank', name }
      if (chance < 0.24) return { op: 'slice-delete', name, slice: this.#sliceOf(stream) }
      if (chance < 0.34) return { op: 'since', name, slice: this.#sinceOf(stream) }
      return { op: 'backup-end', name, outcome: this.#pick(['ok', 'ok', 'fail', 'cancel'] as const) }
    }
    if (stream.slices.length === 0 && chance < 0.5) return { op: 'bank', name, ...force }
    if (chance < 0.3) return { op: 'since', name, slice: this.#sinceOf(stream) }
    if (chance < 0.5) return { op: 'bank', name, ...force }
    if (chance < 0.68) return { op: 'slice-delete', name, slice: this.#sliceOf(stream) }
    const kind = this.#pick([
      'incremental',
      'incremental',
      'incremental',
      'differential',
      'differential',
      'full',
    ] as const)
    if (kind === 'full') return { op: 'backup-begin', name, kind }
    return {
      op: 'backup-begin',
      name,
      kind,
      since: this.#begins(stream),
      ...(kind === 'incremental' ? force : {}),
    }
  }

  /** Only upwards: lowering below what is held is refused by our rules and unknown to QEMU. */
  #setRetention(name: string, stream: StreamView): Step {
    return {
      op: 'set-retention',
      name,
      slices: Math.max(stream.slices.length, stream.retention + this.#pick([-1, 0, 1, 3])),
    }
  }

  #begins(stream: StreamView): number | 'active' {
    const slice = this.#sinceOf(stream)
    return stream.slices.some((held) => held.id === slice) ? slice : 'active'
  }

  #sinceOf(stream: StreamView): number | 'active' {
    return this.#random() < 0.3 ? 'active' : this.#sliceOf(stream)
  }

  #sliceOf(stream: StreamView): number {
    return stream.slices.length === 0 || this.#random() < 0.08 ? 4711 : this.#pick(stream.slices).id
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * Math.max(1, Math.floor(bound)))
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!
  }
}

function jobRuns(state: Expectation): boolean {
  return Object.values(state.bitmaps ?? {}).some((bitmap) => bitmap.busy)
}
