#!/usr/bin/env node
/** The executable: the process's own streams and signals around `run`. The only place that ends the process. */
import { EXIT } from './exit.ts'
import type { Io } from './io.ts'
import { run } from './run.ts'

const io: Io = {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  onInterrupt(stop) {
    let asked = false
    const interrupt = (): void => {
      if (asked) process.exit(130)
      asked = true
      stop('interrupt')
    }
    const broken = (error: NodeJS.ErrnoException): void => {
      stop(error.code === 'EPIPE' ? 'closed-pipe' : error)
    }
    process.on('SIGINT', interrupt).on('SIGTERM', interrupt)
    process.stdout.on('error', broken)
    // The error handler stays: a write that is still under way may fail after the run.
    return () => void process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
  },
}

let ended = false
// Should a bug leave the run waiting for nothing, Node ends: that is a failure, and not success.
process.once('exit', () => {
  if (!ended) process.exitCode = EXIT.failed
})
void run(process.argv.slice(2), io).then((code) => {
  ended = true
  process.exitCode = code
})
