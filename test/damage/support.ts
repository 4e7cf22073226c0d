/**
 * Stores to damage, damage to a file of a copy, and children that judge the copies one by one: what LevelDB
 * does with such files may be a crash or a hang, which must count against the store and not end the proof.
 */
import { spawn } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { drive, pick, type Random, whole } from '../audit/drive.ts'
import { script } from '../support/script.ts'

/** Longer than any case can take; a child that says nothing for so long hangs. */
const HANG_MS = 60_000
/** Copies that a child gets at once: starting one costs more than a case. */
const BATCH = 50

/** A store as it lies on the disk when the damage comes. */
export interface Base {
  readonly name: string
  readonly folder: string
  /** Events in its log. */
  readonly count: number
}

export interface Damage<B extends Base> {
  readonly folder: string
  readonly what: string
  readonly base: B
}

/** The same store after a kill and after a clean close, each with what `known` tells of it while it is sound. */
export async function basesIn<T extends object>(
  root: string,
  random: Random,
  { steps, snapshot }: { readonly steps: number; readonly snapshot: boolean },
  known: (store: Store, base: Base) => Promise<T>,
): Promise<(Base & T)[]> {
  const folder = join(root, 'store')
  const bases: (Base & T)[] = []
  const add = async (name: string, store: Store) => {
    const base = { name, folder: join(root, `base-${bases.length}`), count: store.head.position + 1 }
    cpSync(folder, base.folder, { recursive: true })
    bases.push({ ...base, ...(await known(store, base)) })
    return base
  }
  for (let session = 0; session < 3; session++) {
    const store = await openStore(folder, { snapshotEvery: 1000 })
    await drive(store, random, steps, `s${session}`)
    if (session === 2) {
      // What a kill leaves: a process that is gone has written all that it acknowledged, and closed nothing.
      if (snapshot) await store.snapshot()
      await add('after a kill', store)
    }
    await store.close()
  }
  const store = await openStore(folder)
  const closed = await add('after a clean close', store)
  await store.close()
  rmSync(closed.folder, { recursive: true })
  cpSync(folder, closed.folder, { recursive: true })
  return bases
}

const KINDS: readonly (readonly [string, RegExp])[] = [
  ['table', /^log\/\d+\.ldb$/],
  ['write-ahead', /^log\/\d+\.log$/],
  ['head', /^head$/],
  ['journal', /^log\/journal$/],
  ['manifest', /^log\/MANIFEST-/],
  ['current', /^log\/CURRENT$/],
  ['store.json', /^store\.json$/],
  ['derived', /^derived\/(\d+\.(ldb|log)|MANIFEST-.*|CURRENT)$/],
]

/** A copy of a base with one file damaged so many times. Tables and write-ahead files get half of it all. */
export function damaged<B extends Base>(
  random: Random,
  bases: readonly B[],
  folder: string,
  times: number,
): Damage<B> {
  const base = pick(random, bases)
  cpSync(base.folder, folder, { recursive: true })
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    statSync(join(folder, name)).isFile(),
  )
  for (;;) {
    const [kind, pattern] = pick(random, random() < 0.5 ? KINDS.slice(0, 2) : KINDS)
    const candidates = files.filter((name) => pattern.test(name) && statSync(join(folder, name)).size > 0)
    if (candidates.length === 0) continue
    const name = pick(random, candidates)
    const words = Array.from({ length: times }, () => spoil(random, join(folder, name)))
    return { folder, base, what: `${kind} ${name} of a store ${base.name}: ${words.join(', ')}` }
  }
}

function spoil(random: Random, path: string): string {
  const bytes = readFileSync(path)
  if (bytes.length === 0) return 'empty'
  const at = whole(random, bytes.length)
  const choice = whole(random, 10)
  if (choice < 2) {
    truncateSync(path, at)
    return `cut at ${at} of ${bytes.length}`
  }
  if (choice === 2) {
    const end = Math.min(bytes.length, at + 1 + whole(random, 512))
    bytes.fill(0, at, end)
    writeFileSync(path, bytes)
    return `zeroes from ${at} to ${end} of ${bytes.length}`
  }
  const bit = whole(random, 8)
  bytes[at] = bytes[at]! ^ (1 << bit)
  writeFileSync(path, bytes)
  return `bit ${bit} of byte ${at} of ${bytes.length} flipped`
}

export interface Proof<B extends Base, Answer> {
  readonly name: string
  readonly rounds: number
  readonly damage: (number: number) => Damage<B>
  /** Script that is told a case a line, its base with the copy as folder, and answers with a line each. */
  readonly child: string
  /** What became of the damage, and whether that is as it must be. */
  readonly verdictOf: (
    damage: Damage<B>,
    answer: Answer,
  ) => { readonly verdict: string; readonly right: boolean }
}

export interface Outcome {
  readonly failures: readonly string[]
  /** How many cases came to which verdict. */
  readonly counts: ReadonlyMap<string, number>
}

/** Damages and has judged so many copies, in two children at a time, and prints what became of them. */
export async function judged<B extends Base, Answer>(proof: Proof<B, Answer>): Promise<Outcome> {
  const { name, rounds, damage, child, verdictOf } = proof
  const failures: string[] = []
  const counts = new Map<string, number>()
  const count = (one: Damage<B>, answer: Answer) => {
    const { verdict, right } = verdictOf(one, answer)
    counts.set(verdict, (counts.get(verdict) ?? 0) + 1)
    if (!right) failures.push(`${one.what}: ${JSON.stringify(answer)}`)
  }
  /** A child that dies names its case by not answering it; the rest goes to the next child. */
  const judge = async (cases: readonly Damage<B>[]) => {
    for (let rest = cases; rest.length > 0; ) {
      const answered = await ask(child, rest, count)
      if (answered < rest.length) failures.push(`${rest[answered]!.what}: the process died or hung`)
      rest = rest.slice(answered + 1)
    }
  }
  for (let at = 0; at < rounds; ) {
    const lists = [0, 1].map(() =>
      Array.from({ length: Math.min(BATCH, Math.max(0, rounds - at)) }, () => damage(at++)),
    )
    await Promise.all(lists.map(judge))
  }
  const told = [...counts].map(([verdict, times]) => `${times} ${verdict}`)
  process.stderr.write(`proof: ${name}: ${told.join(', ')}\n`)
  return { failures, counts }
}

/** Resolves with the number of answers; fewer than cases when the child died or hung. */
function ask<B extends Base, Answer>(
  path: string,
  cases: readonly Damage<B>[],
  each: (damage: Damage<B>, answer: Answer) => void,
): Promise<number> {
  const child = spawn(process.execPath, script(path), { stdio: ['pipe', 'pipe', 'ignore'] })
  const hangs = () => setTimeout(() => child.kill('SIGKILL'), HANG_MS)
  let timer = hangs()
  let answered = 0
  createInterface({ input: child.stdout }).on('line', (line) => {
    clearTimeout(timer)
    timer = hangs()
    const one = cases[answered++]!
    each(one, JSON.parse(line) as Answer)
    rmSync(one.folder, { recursive: true, force: true })
  })
  child.stdin.on('error', () => undefined) // A child that died reads no more.
  child.stdin.end(cases.map(({ folder, base }) => `${JSON.stringify({ ...base, folder })}\n`).join(''))
  return new Promise((resolve) => {
    child.on('close', () => {
      clearTimeout(timer)
      resolve(answered)
    })
  })
}
