/**
 * `npm run bench`: measures, side by side in one run. Progress goes to stderr, results to stdout.
 *
 *     npm run bench                        a table
 *     npm run bench -- --json              one JSON object a line
 *     npm run bench -- --only append,at    some of them
 *     npm run bench -- --full              bigger logs, for a quiet machine (about half an hour)
 *     npm run bench -- --write             puts the table into bench/README.md
 */
import { parseArgs } from 'node:util'
import { append } from './cases/append.ts'
import { appendSingle } from './cases/append-single.ts'
import { ask } from './cases/ask.ts'
import { bytesPerEvent } from './cases/bytes-per-event.ts'
import { compact } from './cases/compact.ts'
import { memory } from './cases/memory.ts'
import { merge } from './cases/merge.ts'
import { nbd, nbdTouch } from './cases/nbd.ts'
import { nbdMap } from './cases/nbd-map.ts'
import { at, open } from './cases/past.ts'
import { rebuild } from './cases/rebuild.ts'
import { scale } from './cases/scale.ts'
import { streams } from './cases/streams.ts'
import { verify } from './cases/verify.ts'
import { type Benchmark, benchRoot, type Result, Runner, refuseMemory } from './harness.ts'
import { machineLine, plainTable, writeReadme } from './report.ts'

const BENCHMARKS: readonly Benchmark[] = [
  append,
  appendSingle,
  rebuild,
  bytesPerEvent,
  at,
  open,
  merge,
  memory,
  verify,
  compact,
  streams,
  ask,
  scale,
  nbd,
  nbdTouch,
  nbdMap,
]

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string' },
    full: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
})

/** `changed` is measured with `at`, on the same logs. */
function chosen(): readonly Benchmark[] {
  if (values.only === undefined) return BENCHMARKS
  const names = values.only.split(',').map((name) => (name === 'changed' ? 'at' : name))
  const unknown = names.filter((name) => !BENCHMARKS.some((benchmark) => benchmark.name === name))
  if (unknown.length > 0) {
    const known = BENCHMARKS.map((benchmark) => benchmark.name).join(', ')
    process.stderr.write(`there is no benchmark ${unknown.join(', ')}; there are ${known}\n`)
    process.exit(2)
  }
  return BENCHMARKS.filter((benchmark) => names.includes(benchmark.name))
}

const onTerminal = process.stderr.isTTY
function say(text: string): void {
  if (onTerminal) process.stderr.write(`\r\x1b[K${text}`)
}

const selected = chosen()
refuseMemory(benchRoot())
process.stderr.write(`${machineLine()}\n`)
const results: Result[] = []
for (const benchmark of selected) {
  const runner = new Runner(values.full, tell, say)
  const start = performance.now()
  try {
    await benchmark.run(runner)
  } finally {
    runner.clear()
  }
  say('')
  if (!onTerminal)
    process.stderr.write(`${benchmark.name}: ${((performance.now() - start) / 1000).toFixed(0)} s\n`)
}
if (!values.json) process.stdout.write(`${plainTable(results)}\n`)
if (values.write) writeReadme('bench/README.md', results, values.full)

function tell(result: Result): void {
  results.push(result)
  if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`)
}
