// Types, lint and format, import direction, unused code, package correctness: every step runs, the first failure decides the exit code.
import { spawnSync } from 'node:child_process'

const steps = [
  ['types', 'npx', ['tsc', '-p', '.']],
  ['lint and format', 'npx', ['biome', 'check', '.']],
  ['import direction and style', 'npx', ['vitest', 'run', 'test/tidy.test.ts', '--reporter=dot']],
  ['unused code', 'npx', ['knip']],
  ['build', 'npm', ['run', '--silent', 'build']],
  ['package', 'npx', ['publint', '--strict']],
  ['package types', 'npx', ['attw', '--pack', '.', '--profile', 'esm-only']],
]

let failed = 0
for (const [name, command, args] of steps) {
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}`)
  if (status !== 0) failed++
}
process.exit(failed === 0 ? 0 : 1)
