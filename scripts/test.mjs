// The README's second command: installs missing peers where it can, builds, runs every test, and ends with the line
// `N passed, N failed` (`, N skipped` follows when a peer could not be had). In CI a skip is a failure.
// --full runs the proofs with their large counts. Other arguments go to vitest (then nothing is built or installed).
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const given = process.argv.slice(2)
const full = given.includes('--full')
const only = given.filter((argument) => argument !== '--full')
const env = { ...process.env, ...(full ? { SLICELOG_FULL: '1' } : {}) }

if (only.length === 0) {
  run(process.execPath, ['scripts/peers.mjs'], true)
  run(process.execPath, ['scripts/build.mjs', 'tsconfig.test.json'], false)
  env.SLICELOG_BUILT = '1'
}

const folder = mkdtempSync(join(tmpdir(), 'slicelog-results-'))
const output = join(folder, 'results.json')
const vitest = spawnSync(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${output}`,
    ...only,
  ],
  { stdio: 'inherit', env },
)

let results
try {
  results = JSON.parse(readFileSync(output, 'utf8'))
} catch {
  console.log('0 passed, 1 failed')
  process.exit(1)
} finally {
  rmSync(folder, { recursive: true, force: true })
}

const skipped = []
for (const file of results.testResults) {
  for (const test of file.assertionResults) {
    if (test.status === 'skipped' || test.status === 'pending' || test.status === 'todo')
      skipped.push(test.fullName)
  }
}
for (const name of skipped) console.log(`skipped: ${name}`)
// A file that could not even be collected has no tests to count: it is one failure.
const broken = results.testResults.filter(
  (file) => file.status === 'failed' && file.assertionResults.length === 0,
).length
const strict = process.env.CI === 'true'
const failed = results.numFailedTests + broken + (strict ? skipped.length : 0)
const rest = strict || skipped.length === 0 ? '' : `, ${skipped.length} skipped`
console.log(`${results.numPassedTests} passed, ${failed} failed${rest}`)
process.exit(failed === 0 && vitest.status === 0 ? 0 : 1)

function run(command, args, mayFail) {
  const { status } = spawnSync(command, args, { stdio: 'inherit', env })
  if (status !== 0 && !mayFail) {
    console.log('0 passed, 1 failed')
    process.exit(1)
  }
}
