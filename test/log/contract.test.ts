/** The exported suite, on every log we have. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'vitest'
import { eventLogContract } from '../../src/log/contract.ts'
import type { EventLog } from '../../src/log/event-log.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { openIn } from './open.ts'

function memory(wrap: (log: EventLog) => EventLog) {
  return async () => {
    const inner = new MemoryEventLog()
    const reopen = async () => {
      await inner.close()
      return wrap(new MemoryEventLog(inner.storage))
    }
    return { log: wrap(inner), reopen }
  }
}

async function level(repackEvery: number) {
  const root = await mkdtemp(join(tmpdir(), 'slicelog-contract-'))
  const { log } = await openIn(root, { repackEvery })
  const reopen = async () => {
    await log.close()
    return (await openIn(root, { createIfMissing: false, repackEvery })).log
  }
  return { log, reopen, dispose: () => rm(root, { recursive: true, force: true }) }
}

eventLogContract({ name: 'memory', open: memory((log) => log), test })
eventLogContract({ name: 'fault wrapper without a fault', open: memory((log) => new FaultLog(log)), test })
eventLogContract({ name: 'level', open: () => level(Number.POSITIVE_INFINITY), test })
