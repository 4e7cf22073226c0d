/**
 * `npm run golden -- FOLDER`: replays every trace of a folder against the store and says which passed. The last line is
 * `N passed, N failed`; the exit code is 1 if any failed, or if there was nothing to replay.
 */
import { basename } from 'node:path'
import { readTrace, tracesIn } from './format.ts'
import { replayTrace } from './replay.ts'

async function main(folder: string | undefined): Promise<void> {
  if (folder === undefined) {
    process.stderr.write('usage: npm run golden -- FOLDER\n')
    process.exitCode = 2
    return
  }
  let [passed, failed] = [0, 0]
  for (const file of tracesIn(folder)) {
    const wrong = await replayFile(file)
    if (wrong.length === 0) passed++
    else failed++
    process.stdout.write(`${wrong.length === 0 ? 'passed' : 'FAILED'} ${basename(file)}\n`)
    for (const line of wrong) process.stdout.write(`  ${line}\n`)
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`)
  if (failed > 0 || passed === 0) process.exitCode = 1
}

async function replayFile(file: string): Promise<string[]> {
  try {
    return await replayTrace(readTrace(file))
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)]
  }
}

await main(process.argv[2])
