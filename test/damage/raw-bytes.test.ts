/**
 * Flips and cuts in the bytes of a store's files, whatever they are: every one is found or refused, or every record still
 * reads back as it was. Each copy is opened and verified in a child process, so that a crash or a hang of LevelDB counts.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { announce, prng, runs, seed } from '../support/property.ts'
import { contentOf } from './content.ts'
import { type Base, basesIn, type Damage, damaged, judged } from './support.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'child.ts')

interface Known extends Base {
  readonly hash: string
  readonly content: string
}

interface Answer {
  readonly verify: {
    readonly hash?: string
    readonly findings?: readonly string[]
    readonly refused?: string
  }
  readonly open: { readonly content?: string; readonly refused?: string }
}

const used = seed()
const random = prng(used)
let root = ''
let bases: readonly Known[] = []

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'slicelog-damage-'))
  bases = await basesIn(root, random, { steps: 30, snapshot: true }, async (store, { count }) => ({
    hash: store.head.hash,
    content: await contentOf(store, count),
  }))
})

afterAll(() => rmSync(root, { recursive: true, force: true }))

/** How the damage was dealt with; null: not at all. */
function verdictOf({ base }: Damage<Known>, { verify, open }: Answer): string | null {
  const refused = [verify.refused, open.refused].find((code) => code?.startsWith('no code'))
  if (refused !== undefined) return null
  const found = verify.refused !== undefined || (verify.findings?.length ?? 0) > 0
  if (!found && verify.hash !== base.hash) return null
  if (open.refused === undefined && open.content !== base.content) return null
  // A log that is refused must not pass for sound: verify has to say why.
  if (open.refused !== undefined && !found) return null
  return found ? (open.refused === undefined ? 'found, reads equal' : 'found, refused') : 'without effect'
}

test('R28: after random flips and cuts in the files, damage is found or refused, or every record reads back equal', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(1000, 5000)
  announce('damage to raw bytes', rounds, used)
  const { failures } = await judged<Known, Answer>({
    name: 'damage to raw bytes',
    rounds,
    damage: (number) => damaged(random, bases, join(root, `case-${number}`), 1),
    child: CHILD,
    verdictOf: (damage, answer) => {
      const verdict = verdictOf(damage, answer)
      return { verdict: verdict ?? 'WRONG', right: verdict !== null }
    },
  })
  expect(failures).toEqual([])
})
