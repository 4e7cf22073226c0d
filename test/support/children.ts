/** Processes that a test file starts: none outlives it, also when a test fails in between. */
import type { ChildProcess } from 'node:child_process'

const running = new Set<ChildProcess>()

export function tracked<T extends ChildProcess>(child: T): T {
  running.add(child)
  child.once('close', () => running.delete(child))
  return child
}

/** For the end of a test file, before what they write to is removed. */
export function endChildren(): void {
  for (const child of running) child.kill('SIGKILL')
}
