/**
 * What a repair takes out, kept where it can be read again: `aside/repair-TIME/` with the damaged log's own files, the head file,
 * why it was repaired, and each value that did not go into the log again, with its position and the reason.
 *
 *     taken-out = one JSON object a line: {"position","why","bytes","value"}     value: base64 of what was stored
 */
import { createReadStream, createWriteStream, type WriteStream } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { REPAIR_PREFIX } from '../log/aside.ts'
import type { UnknownKey } from '../log/salvage.ts'
import { needPath } from '../store/arguments.ts'
import type { TakenOut } from './repair-choose.ts'

const TAKEN_OUT = 'taken-out'
/** Written last: a folder that has it is whole. */
export const REPORT = 'report.json'

export function keptName(time: number): string {
  return `${REPAIR_PREFIX}${new Date(time).toISOString().replace(/[:.]/g, '-')}-${process.pid}`
}

export class KeptFolder {
  readonly #folder: string | null
  #file: WriteStream | undefined
  count = 0
  /** The first of them, for the report. */
  readonly first: { readonly position: number | null; readonly why: string }[] = []

  /** Null: a dry run, which keeps nothing. */
  constructor(folder: string | null) {
    this.#folder = folder
  }

  readonly takeOut = async ({ position, value, why }: TakenOut): Promise<void> => {
    await this.#line(position, why, {
      position,
      why,
      bytes: value.length,
      value: Buffer.from(value).toString('base64'),
    })
  }

  async unknownKey({ key, value }: UnknownKey): Promise<void> {
    const why = 'no slicelog writes this key'
    const name = Buffer.from(key).toString('hex')
    await this.#line(null, why, {
      position: null,
      key: name,
      why,
      bytes: value.length,
      value: Buffer.from(value).toString('base64'),
    })
  }

  async #line(position: number | null, why: string, line: object): Promise<void> {
    this.count++
    if (this.first.length < 20) this.first.push({ position, why })
    if (this.#folder === null) return
    if (this.#file === undefined) {
      await mkdir(this.#folder, { recursive: true })
      this.#file = createWriteStream(join(this.#folder, TAKEN_OUT), { flush: true })
    }
    const file = this.#file
    if (!file.write(`${JSON.stringify(line)}\n`))
      await new Promise<void>((resolve) => file.once('drain', () => resolve()))
  }

  /** Everything on disk, with the report beside it. */
  async finish(report: unknown): Promise<void> {
    if (this.#folder === null) return
    await this.close()
    await mkdir(this.#folder, { recursive: true })
    await writeFile(join(this.#folder, REPORT), `${JSON.stringify(report, null, 2)}\n`, {
      flush: true,
    })
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    if (file === undefined) return
    await new Promise<void>((resolve, reject) => {
      file.once('error', reject)
      file.end(resolve)
    })
  }
}

/** What a repair took out, read back. */
export async function* takenOut(
  folder: string,
): AsyncGenerator<{ position: number | null; why: string; value: Uint8Array }> {
  needPath('the folder', folder)
  for await (const line of createInterface({ input: createReadStream(join(folder, TAKEN_OUT)) })) {
    const { position, why, value } = JSON.parse(line) as {
      position: number | null
      why: string
      value: string
    }
    yield { position, why, value: new Uint8Array(Buffer.from(value, 'base64')) }
  }
}
