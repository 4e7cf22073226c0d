/**
 * The main job, end to end (`npm run demo [-- FOLDER]`): a real guest's writes, replayed on their own clock into a store
 * in a folder, with a schedule of backups over them; then everything that only such a store can answer. The store stays.
 */
import { existsSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { verifyStore } from '../src/audit/verify.ts'
import { paintFor } from '../src/cli/render/paint.ts'
import { type Progress, progressBar } from '../src/cli/render/progress.ts'
import * as text from '../src/cli/render/text.ts'
import { CheckpointError, KiB, openStore, type Store } from '../src/index.ts'
import { manualClock } from '../src/testing/clock.ts'
import { ACTOR, clearFolder } from './main-job/folder.ts'
import { replayTrace } from './main-job/replay.ts'
import {
  backupsText,
  changedText,
  nextText,
  type ReplayedPlan,
  replayedText,
  slicesText,
  stepsText,
  title,
  verifyText,
} from './main-job/report.ts'
import { DISK, prepare } from './main-job/schedule.ts'

/** The trace's first line happens here; 18:00:00 is a moment in the middle that nobody marks. */
const START = Date.UTC(2026, 10, 18, 17, 58, 50)
const UNMARKED = '2026-11-18T18:00:00Z'
const paint = paintFor(process.stdout, process.env)

async function main(folder: string): Promise<void> {
  const began = performance.now()
  await clearFolder(folder)
  const clock = manualClock(START)
  const store = await openStore(folder, { clock, actor: ACTOR })
  try {
    await work(store, clock, folder)
  } finally {
    await store.close()
  }
  const verified = await withBar('verify', async (bar) =>
    verifyStore(folder, { onProgress: (position, total) => bar.update(position, total) }),
  )
  say(title(paint, 'Verify: every record, the chain, the head, every plan'), verifyText(paint, verified))
  say(title(paint, `Done in ${text.duration(performance.now() - began)}. The store stays in ${folder}; try`))
  say(nextText(paint, folder, UNMARKED))
  if (verified.findings.length > 0) throw new Error('verify found damage')
}

async function work(store: Store, clock: ReturnType<typeof manualClock>, folder: string): Promise<void> {
  await prepare(store)
  const replayed = await withBar('replay', (bar) =>
    replayTrace(store, clock, traceFile(), (read, size, note) => bar.update(read, size, note)),
  )
  say(
    `Replayed ${text.plural(replayed.writes, 'write')} (${text.bytes(replayed.bytes)}) of a real guest into ${folder}, on the guest's own clock.`,
  )
  say(title(paint, 'What happened'), stepsText(paint, replayed.steps))
  say(title(paint, 'Backups'), backupsText(paint, store))
  say(title(paint, 'Slices, and where on the disk they are dirty'), await slicesText(paint, store))
  const changed = await store.disk(DISK).changed({ since: { time: UNMARKED }, granularity: 64 * KiB })
  say(
    title(paint, `What changed since ${UNMARKED}, a moment that nobody marked`),
    changedText(paint, changed),
  )
  const plans = await withBar('replay plans', (bar) => replayPlans(store, bar))
  say(title(paint, 'Every past plan, planned again from the log alone'), replayedText(paint, plans))
  if (plans.some(({ backup, plan }) => plan.digest !== backup.digest))
    throw new Error('a replayed plan differs')
}

async function replayPlans(store: Store, bar: Progress): Promise<ReplayedPlan[]> {
  const backups = [...store.backups()]
  const plans: ReplayedPlan[] = []
  for (const backup of backups) {
    bar.update(plans.length, backups.length, backup.id)
    plans.push({ backup, plan: await store.replayPlan(backup.id) })
  }
  return plans
}

async function withBar<T>(label: string, body: (bar: Progress) => Promise<T>): Promise<T> {
  const bar = progressBar(process.stderr, label)
  try {
    return await body(bar)
  } finally {
    bar.stop()
  }
}

/** The trace lies beside the sources; once built, the program is one folder further away from it. */
function traceFile(): string {
  const candidates = ['./data/', '../../examples/data/'].map((where) =>
    fileURLToPath(new URL(`${where}guest-ext4.csv.gz`, import.meta.url)),
  )
  const found = candidates.find((file) => existsSync(file))
  if (found === undefined)
    throw new Error('examples/data/guest-ext4.csv.gz is missing: run the demo in a checkout')
  return relative(process.cwd(), found) || found
}

function say(...parts: readonly string[]): void {
  process.stdout.write(`${parts.join('')}\n`)
}

main(process.argv[2] ?? './demo-store').catch((error: unknown) => {
  const code = error instanceof CheckpointError ? ` (${error.code})` : ''
  process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}${code}\n`)
  process.exitCode = 1
})
