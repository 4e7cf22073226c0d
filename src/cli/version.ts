/** The version as package.json has it: the file lies beside `src` in the sources and beside `dist` once built. */
import { existsSync, readFileSync } from 'node:fs'

export const version: string = readVersion()

function readVersion(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    const file = new URL(up, import.meta.url)
    if (!existsSync(file)) continue
    const { name, version: found } = JSON.parse(readFileSync(file, 'utf8')) as {
      name?: string
      version?: string
    }
    if (name === 'slicelog' && found !== undefined) return found
  }
  return '0.0.0'
}
