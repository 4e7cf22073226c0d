/**
 * Sequences that a real QEMU carried out, replayed on the store: bit for bit the same state after every step. The
 * project's own traces always run; a checkout that has a folder of others beside it (`../shared/golden`) runs them too.
 */
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { announce } from '../support/property.ts'
import { readTrace, tracesIn } from './format.ts'
import { modeOf, refusedJob } from './job-rules.ts'
import { replayTrace } from './replay.ts'

const OWN = fileURLToPath(new URL('recorded', import.meta.url))
const BESIDE = fileURLToPath(new URL('../../../shared/golden', import.meta.url))

/** What a profile presses on, as the rules that it proves. */
const RULES: Readonly<Record<string, string>> = {
  prims: 'R1, R2, R4, R5, R21',
  gran: 'R2, R4, R5',
  txn: 'R6, R20, R21',
  slices: 'R9, R10, R11, R15, R16, R17, R18',
  bulk: 'R2, R9, R16, R17',
  jobs: 'R6, R8, R9, R10',
  persist: 'R4',
  resize: 'R7',
}

const folders = [OWN, ...(existsSync(BESIDE) ? [BESIDE] : [])]

describe.each(folders)('traces of a real QEMU in %s', (folder) => {
  for (const file of tracesIn(folder)) {
    const { profile } = readTrace(file)
    const rules = RULES[profile] ?? 'R5'
    test(`${rules}: after every step of ${basename(file)} all bits, flags, slices and refusals are QEMU's`, async () => {
      const trace = readTrace(file)
      announce(`golden ${basename(file)}`, trace.steps.length, trace.seed)
      expect(await replayTrace(trace)).toEqual([])
    })
  }
})

test('R30: the same trace gives the same state on a store in a folder', async () => {
  const trace = readTrace(join(OWN, 'slices-71014.json'))
  expect(await replayTrace(trace, 'folder')).toEqual([])
})

test('a trace whose expectation was changed fails (the replay can tell a difference)', async () => {
  const trace = readTrace(join(OWN, 'prims-71001.json'))
  const end = trace.steps.at(-1)!
  const [name] = Object.keys(end.expect.sha256!)
  const wrong = { ...end.expect, sha256: { ...end.expect.sha256, [name!]: '0'.repeat(64) } }
  const changed = { ...trace, steps: [...trace.steps.slice(0, -1), { ...end, expect: wrong }] }
  expect(await replayTrace(changed)).toHaveLength(1)
})

test("R9: a job's arguments are refused in QEMU's order and words, and an accepted one has one mode of ours", () => {
  expect(refusedJob({ sync: 'incremental' }, false)).toBe(
    "must provide a valid bitmap name for 'incremental' sync mode",
  )
  expect(refusedJob({ sync: 'bitmap' }, false)).toBe(
    "must provide a valid bitmap name for 'bitmap' sync mode",
  )
  expect(refusedJob({ sync: 'full', mode: 'never' }, false)).toBe(
    'Cannot specify bitmap sync mode without a bitmap',
  )
  expect(refusedJob({ sync: 'incremental', bitmap: 'no', mode: 'never' }, false)).toMatch(
    /^Bitmap sync mode must be 'on-success'/,
  )
  expect(refusedJob({ sync: 'bitmap', bitmap: 'no', mode: 'never' }, false)).toBeUndefined()
  expect(refusedJob({ sync: 'full', bitmap: 'b' }, true)).toBe(
    'Bitmap sync mode must be given when providing a bitmap',
  )
  expect(refusedJob({ sync: 'none', bitmap: 'b', mode: 'always' }, true)).toMatch(
    /^sync mode 'none' does not produce/,
  )
  expect(refusedJob({ sync: 'top', bitmap: 'b', mode: 'never' }, true)).toMatch(
    /combined with sync mode 'top'$/,
  )
  expect(refusedJob({ sync: 'full', bitmap: 'b', mode: 'always' }, true)).toBeUndefined()
  expect(modeOf({ sync: 'incremental', bitmap: 'b' })).toBe('incremental')
  expect(modeOf({ sync: 'bitmap', bitmap: 'b', mode: 'always' })).toBe('incremental')
  expect(modeOf({ sync: 'bitmap', bitmap: 'b', mode: 'never' })).toBe('differential')
  expect(modeOf({ sync: 'full', bitmap: 'b', mode: 'on-success' })).toBe('full')
})
