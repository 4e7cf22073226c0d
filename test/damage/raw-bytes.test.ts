/**
 * Flips and cuts in the bytes of a store's files, whatever they are: every one is found or refused, or every record still
 * reads back as it was. Each copy is opened and verified in a child process, so that a crash or a hang of LevelDB counts.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openStore } from '../../src/store/open.ts'
import { drive } from '../audit/drive.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'
import { contentOf } from './content.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'child.ts')
/** Longer than any case can take; a child that says nothing for so long hangs. */
const HANG_MS = 60_000

interface Base {
  readonly name: string
  readonly folder: string
  readonly count: number
  readonly hash: string
  readonly content: string
}

interface Damage {
  readonly folder: string
  readonly what: string
  readonly base: Base
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
const below = (n: number) => Math.floor(random() * n)
let root = ''
const bases: Base[] = []

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'slicelog-damage-'))
  const folder = join(root, 'store')
  for (let session = 0; session < 3; session++) {
    const store = await openStore(folder, { snapshotEvery: 1000 })
    await drive(store, random, 30, `s${session}`)
    if (session === 2) {
      // What a kill leaves: a process that is gone has written all that it acknowledged, and closed nothing.
      await store.snapshot()
      bases.push(await baseOf('after a kill', store, folder))
    }
    await store.close()
  }
  const store = await openStore(folder)
  const base = await baseOf('after a clean close', store, folder)
  await store.close()
  rmSync(base.folder, { recursive: true })
  cpSync(folder, base.folder, { recursive: true })
  bases.push({ ...base })
})

afterAll(() => rmSync(root, { recursive: true, force: true }))

async function baseOf(
  name: string,
  store: Awaited<ReturnType<typeof openStore>>,
  folder: string,
): Promise<Base> {
  const { position, hash } = store.head
  const copy = join(root, `base-${bases.length}`)
  cpSync(folder, copy, { recursive: true })
  return { name, folder: copy, count: position + 1, hash, content: await contentOf(store, position + 1) }
}

const KINDS: readonly (readonly [string, RegExp])[] = [
  ['table', /^log\/\d+\.ldb$/],
  ['write-ahead', /^log\/\d+\.log$/],
  ['head', /^head$/],
  ['manifest', /^log\/MANIFEST-/],
  ['current', /^log\/CURRENT$/],
  ['store.json', /^store\.json$/],
  ['derived', /^derived\/(\d+\.(ldb|log)|MANIFEST-.*|CURRENT)$/],
]

/** One damage to one file of a copy. Tables and write-ahead files get half of them. */
function damaged(number: number): Damage {
  const base = bases[below(bases.length)]!
  const folder = join(root, `case-${number}`)
  cpSync(base.folder, folder, { recursive: true })
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    statSync(join(folder, name)).isFile(),
  )
  for (;;) {
    const [kind, pattern] = KINDS[random() < 0.5 ? below(2) : below(KINDS.length)]!
    const candidates = files.filter((name) => pattern.test(name) && statSync(join(folder, name)).size > 0)
    if (candidates.length === 0) continue
    const name = candidates[below(candidates.length)]!
    return { folder, base, what: `${kind} ${name} of a store ${base.name}: ${spoil(join(folder, name))}` }
  }
}

function spoil(path: string): string {
  const bytes = readFileSync(path)
  const at = below(bytes.length)
  const choice = below(10)
  if (choice < 2) {
    truncateSync(path, at)
    return `cut at ${at} of ${bytes.length}`
  }
  if (choice === 2) {
    const end = Math.min(bytes.length, at + 1 + below(512))
    bytes.fill(0, at, end)
    writeFileSync(path, bytes)
    return `zeroes from ${at} to ${end} of ${bytes.length}`
  }
  const bit = below(8)
  bytes[at] = bytes[at]! ^ (1 << bit)
  writeFileSync(path, bytes)
  return `bit ${bit} of byte ${at} of ${bytes.length} flipped`
}

/** Runs the cases through one child. A child that dies names its case by not answering it; the rest goes to the next child. */
async function judge(
  cases: readonly Damage[],
  failures: string[],
  counts: Map<string, number>,
): Promise<void> {
  let rest = [...cases]
  while (rest.length > 0) {
    const answered = await ask(rest, (damage, answer) => {
      const verdict = verdictOf(damage, answer)
      const name = verdict ?? 'WRONG'
      counts.set(name, (counts.get(name) ?? 0) + 1)
      if (verdict === null) failures.push(`${damage.what}: ${JSON.stringify(answer)}`)
    })
    if (answered < rest.length) failures.push(`${rest[answered]!.what}: the process died or hung`)
    rest = rest.slice(answered + 1)
  }
}

function ask(cases: readonly Damage[], each: (damage: Damage, answer: Answer) => void): Promise<number> {
  const child: ChildProcess = spawn(process.execPath, script(CHILD), {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  let answered = 0
  let timer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
  createInterface({ input: child.stdout! }).on('line', (line) => {
    clearTimeout(timer)
    timer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
    const said = JSON.parse(line) as Answer & { start?: string }
    if (said.start !== undefined) return
    each(cases[answered]!, said)
    rmSync(cases[answered]!.folder, { recursive: true, force: true })
    answered++
  })
  child.stdin!.on('error', () => undefined) // A child that died reads no more.
  child.stdin!.end(
    cases.map(({ folder, base }) => `${JSON.stringify({ folder, count: base.count })}\n`).join(''),
  )
  return new Promise((resolve) => {
    child.on('close', () => {
      clearTimeout(timer)
      resolve(answered)
    })
  })
}

/** How the damage was dealt with; null: not at all. */
function verdictOf({ base }: Damage, { verify, open }: Answer): string | null {
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
  const failures: string[] = []
  const counts = new Map<string, number>()
  for (let at = 0; at < rounds; ) {
    const lists = [0, 1].map(() =>
      Array.from({ length: Math.min(60, Math.max(0, rounds - at)) }, () => damaged(at++)),
    )
    await Promise.all(lists.map((list) => judge(list, failures, counts)))
  }
  process.stderr.write(
    `proof: damage to raw bytes: ${[...counts].map(([name, count]) => `${count} ${name}`).join(', ')}\n`,
  )
  expect(failures).toEqual([])
})
