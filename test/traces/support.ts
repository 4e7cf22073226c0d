/** Trace files made for a test, in a folder that goes away with it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll } from 'vitest'
import { openTrace, type Trace, type TraceOptions } from '../../src/traces/reader.ts'

export interface Row {
  readonly offset: number
  readonly length: number
  readonly op: number
  readonly timeUs: number
  readonly line: number
}

/** A folder for the tests of a file; `file` writes into it and gives the path. */
export function traceFolder(): {
  file(name: string, content: string | Uint8Array): Promise<string>
  path(name: string): string
} {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'slicelog-trace-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))
  return {
    path: (name) => join(folder, name),
    async file(name, content) {
      await writeFile(join(folder, name), content)
      return join(folder, name)
    },
  }
}

export async function readAll(
  path: string,
  options: TraceOptions = {},
): Promise<{ trace: Trace; rows: Row[] }> {
  const trace = await openTrace(path, options)
  const rows: Row[] = []
  for await (const batch of trace.batches()) {
    for (let i = 0; i < batch.count; i++) {
      rows.push({
        offset: batch.offsets[i]!,
        length: batch.lengths[i]!,
        op: batch.ops[i]!,
        timeUs: batch.timesUs[i]!,
        line: batch.lines[i]!,
      })
    }
  }
  return { trace, rows }
}

export function gzipped(text: string): Uint8Array {
  return gzipSync(Buffer.from(text))
}
