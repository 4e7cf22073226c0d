/** One process owns a store; the second one is told who does. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openIn } from './open.ts'
import { kill, refusal, startChild, temporaryFolder } from './support.ts'

test('R34: a second open in the same process is refused with STORE_IN_USE, and the first goes on', async () => {
  const root = await temporaryFolder()
  const { log } = await openIn(root)
  const error = await refusal(openIn(root))
  expect(error).toMatchObject({
    code: 'STORE_IN_USE',
    facts: { heldBy: { pid: process.pid, life: 'running' } },
  })
  expect(existsSync(join(root, 'owner.json'))).toBe(true)
  await log.close()
  expect(existsSync(join(root, 'owner.json'))).toBe(false)
  await (await openIn(root)).log.close()
})

test('R34: a store held by another process names it; after its death the store opens', async () => {
  const root = await temporaryFolder()
  const { child, until } = startChild(root, '8', 'wait')
  await until(/^ready/)
  const error = await refusal(openIn(root))
  expect(error).toMatchObject({
    code: 'STORE_IN_USE',
    facts: { heldBy: { pid: child.pid, life: 'running' } },
  })
  expect(error.message).toContain(String(child.pid))
  await kill(child)
  await (await openIn(root)).log.close()
})
