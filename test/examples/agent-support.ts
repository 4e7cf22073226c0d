/** What the agent's tests give it: a disk, a clock that jumps to when the next backup is due, snapshots that are files. */
import { existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AgentOptions, Mover } from '../../examples/agent.ts'
import { MiB, type Plan } from '../../src/index.ts'

export const DISK = 'vm/vda'

/** `every` 0: each tick is due. */
export function agentOptions(given: Partial<AgentOptions> & Pick<AgentOptions, 'mover'>): AgentOptions {
  return {
    disk: DISK,
    size: MiB,
    bitmap: 'daily',
    retention: 2,
    every: 0,
    retryAfter: 0,
    clock: { now: () => Date.now() + 1, monotonic: () => performance.now() },
    ...given,
  }
}

export function fileMover(folder: string, copy: (id: string, plan: Plan) => Promise<void>): Mover {
  return {
    snapshot: (id) => writeFile(join(folder, id), ''),
    hasSnapshot: async (id) => existsSync(join(folder, id)),
    copy,
    dropSnapshot: (id) => rm(join(folder, id)),
  }
}

/** Copies in memory, failing where `fails` says so; remembers what it copied. */
export function memoryMover(
  fails: (id: string) => boolean = () => false,
): Mover & { readonly copied: { id: string; plan: Plan }[] } {
  const copied: { id: string; plan: Plan }[] = []
  return {
    copied,
    snapshot: async () => {},
    hasSnapshot: async () => true,
    async copy(id, plan) {
      if (fails(id)) throw new Error('the target is full')
      copied.push({ id, plan })
    },
    dropSnapshot: async () => {},
  }
}
