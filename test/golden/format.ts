/**
 * Traces of a real QEMU, as files: a head, then one step a line, each with the state that QEMU reported after it.
 * Every offset, length, count and granularity is in bytes. `recorded/README.md` says how a trace is read.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export type Range = readonly [offset: number, length: number]
export type JobMode = 'on-success' | 'never' | 'always'
export type Outcome = 'ok' | 'fail' | 'cancel'

/** What can be one of a transaction's actions, and also a step of its own. */
export type BitmapStep =
  | {
      readonly op: 'add'
      readonly name: string
      readonly granularity?: number
      readonly disabled?: boolean
      readonly persistent?: boolean
    }
  | { readonly op: 'enable' | 'disable' | 'clear' | 'remove'; readonly name: string }
  | { readonly op: 'merge'; readonly target: string; readonly bitmaps: readonly string[] }

export type DiskStep =
  | {
      readonly op: 'write' | 'zero' | 'trim'
      readonly offset: number
      readonly length: number
      readonly flags?: number
    }
  | { readonly op: 'read'; readonly offset: number; readonly length: number }
  | { readonly op: 'flush' }
  | { readonly op: 'writes'; readonly list: readonly Range[] }
  | { readonly op: 'resize'; readonly size: number }
  | { readonly op: 'restart' }

export type JobStep =
  | { readonly op: 'job-start'; readonly bitmap: string; readonly sync: string; readonly mode?: JobMode }
  | { readonly op: 'job-end'; readonly outcome: Outcome }

/** Bitmaps with slices, which QEMU does not have: carried out there with its own primitives. */
export type StreamStep =
  | {
      readonly op: 'stream-create'
      readonly name: string
      readonly granularity: number
      readonly retention: number
    }
  | { readonly op: 'set-retention'; readonly name: string; readonly slices: number }
  | {
      readonly op: 'backup-begin'
      readonly name: string
      readonly kind: 'incremental' | 'differential' | 'full'
      readonly since?: number | 'active'
      readonly force_cycle?: boolean
    }
  | { readonly op: 'backup-end'; readonly name: string; readonly outcome: Outcome }
  | { readonly op: 'bank'; readonly name: string; readonly force_cycle?: boolean }
  | { readonly op: 'since'; readonly name: string; readonly slice: number | 'active' }
  | { readonly op: 'slice-delete'; readonly name: string; readonly slice: number }

export type Step =
  | DiskStep
  | BitmapStep
  | { readonly op: 'transaction'; readonly actions: readonly BitmapStep[] }
  | JobStep
  | StreamStep
  | { readonly op: 'end' }

/** Why a step was refused. `class` is QEMU's, `NBD` for a disk operation, `Seed` for an operation on slices. */
export interface Refusal {
  readonly class: string
  readonly code?: string
  readonly errno?: number
  readonly desc?: string
}

export interface BitmapView {
  readonly granularity: number
  readonly recording: boolean
  readonly busy: boolean
  readonly persistent: boolean
  readonly count: number
  /** Null while busy: QEMU shows nobody the bits of a busy bitmap. */
  readonly extents: readonly Range[] | null
  readonly successor_count?: number
}

export interface BitsView {
  readonly count: number
  readonly extents: readonly Range[]
}

export interface StreamView {
  readonly granularity: number
  readonly retention: number
  readonly next: number
  readonly active: BitsView
  readonly frozen: BitsView | null
  readonly slices: readonly ({ readonly id: number } & BitsView)[]
}

/** What a bank or a backup's end answers, or the bits of a plan. */
export type StepResult = BitsView | { readonly slice: number | null; readonly dropped: readonly number[] }

export interface StreamDigests {
  readonly active: string
  readonly slices: Readonly<Record<string, string>>
}

export interface Expectation {
  readonly error: Refusal | null
  readonly result?: StepResult
  readonly bitmaps?: Readonly<Record<string, BitmapView>>
  readonly streams?: Readonly<Record<string, StreamView>>
  readonly sha256?: Readonly<Record<string, string>>
  readonly stream_sha256?: Readonly<Record<string, StreamDigests>>
}

export type TraceStep = Step & { readonly expect: Expectation }

export interface TraceHead {
  readonly format: 'qemu-golden/1'
  readonly qemu: string
  readonly profile: string
  readonly seed: number
  readonly disk: { readonly size: number; readonly format: string }
}

export interface Trace extends TraceHead {
  readonly steps: readonly TraceStep[]
}

/** Reads one trace. Throws with the file's name when it is no trace. */
export function readTrace(file: string): Trace {
  const trace = JSON.parse(readFileSync(file, 'utf8')) as Trace
  if (trace.format !== 'qemu-golden/1') throw new Error(`${file}: not a trace of format qemu-golden/1`)
  return trace
}

/** Paths of the traces of a folder, by name. */
export function tracesIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => join(folder, name))
}

/** The file's text: the head, then a step a line, so that a diff shows one step. */
export function traceText(head: TraceHead, steps: readonly TraceStep[]): string {
  const opening = JSON.stringify({ ...head, steps: [] }).slice(0, -2)
  return `${opening}\n${steps.map((step) => JSON.stringify(step)).join(',\n')}\n]}\n`
}
