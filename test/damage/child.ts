/**
 * Opens and verifies damaged copies of a store, one after the other, and tells of each what it found: run as a process of its
 * own, so that a crash of LevelDB is seen. stdin: one case a line, `{"folder","count"}`; stdout: a result for each.
 */
import { createInterface } from 'node:readline'
import { verifyStore } from '../../src/audit/verify.ts'
import { CheckpointError } from '../../src/errors.ts'
import { openStore } from '../../src/store/open.ts'
import { contentOf } from './content.ts'

interface Case {
  readonly folder: string
  readonly count: number
}

async function verified(folder: string) {
  try {
    const { head, findings } = await verifyStore(folder)
    return { hash: head.hash, findings: [...new Set(findings.map(({ code }) => code))] }
  } catch (error) {
    return { refused: codeOf(error) }
  }
}

async function opened({ folder, count }: Case) {
  let store: Awaited<ReturnType<typeof openStore>> | undefined
  try {
    store = await openStore(folder, { create: false })
    return { content: await contentOf(store, count) }
  } catch (error) {
    return { refused: codeOf(error) }
  } finally {
    await store?.close().catch(() => undefined) // Closing what is damaged may be refused as well.
  }
}

/** A failure without a code is no answer: the parent counts it as a failure. */
function codeOf(error: unknown): string {
  return error instanceof CheckpointError
    ? error.code
    : `no code: ${error instanceof Error ? error.stack : String(error)}`
}

for await (const line of createInterface({ input: process.stdin })) {
  const one = JSON.parse(line) as Case
  const verify = await verified(one.folder)
  process.stdout.write(`${JSON.stringify({ folder: one.folder, verify, open: await opened(one) })}\n`)
}
