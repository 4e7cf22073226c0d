/**
 * Flips, zeroes and cuts in the bytes of a store's files, then a repair: the store opens, verify finds nothing, what survived is
 * what was there, and what did not is told. In a child process, so that a crash or a hang of LevelDB counts.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { whole } from '../audit/drive.ts'
import { recordsIn } from '../audit/repair-support.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { type Base, basesIn, damaged, judged } from './support.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'repair-child.ts')

interface Known extends Base {
  /** JSON file: what the log held, as the child wants it. */
  readonly originals: string
}

interface Answer {
  readonly verdict: string
  readonly wrong?: string
}

const used = seed()
const random = prng(used)
let root = ''
let bases: readonly Known[] = []

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'slicelog-repair-raw-'))
  bases = await basesIn(root, random, { steps: 20, snapshot: false }, async (store, { folder }) => {
    const originals = `${folder}.json`
    writeFileSync(originals, JSON.stringify([...(await recordsIn(store))]))
    return { originals }
  })
})

afterAll(() => rmSync(root, { recursive: true, force: true }))

/** What nobody can put right: a store.json that claims a newer format, or a log of which nothing is left to read. */
const REFUSALS = ['refused FORMAT_TOO_NEW', 'refused REPAIR_IMPOSSIBLE', 'refused NOT_A_STORE']

test('R28, R35: after random damage to the files a repair gives a store that is sound, holds nothing that was not there, and tells what is gone', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(120, 2000)
  announce('repair of raw damage', rounds, used)
  const { failures, counts } = await judged<Known, Answer>({
    name: 'repair of raw damage',
    rounds,
    damage: (number) => damaged(random, bases, join(root, `case-${number}`), 1 + whole(random, 3)),
    child: CHILD,
    verdictOf: (_, { verdict }) => ({
      verdict,
      right: verdict !== 'wrong' && (!verdict.startsWith('refused') || REFUSALS.includes(verdict)),
    }),
  })
  expect(failures).toEqual([])
  // Refused is what hit the block with the log's first record, a large part of a store this small; the rest is to be survived.
  const refused = REFUSALS.reduce((sum, name) => sum + (counts.get(name) ?? 0), 0)
  expect(refused).toBeLessThan(rounds / 3)
})
