/** Scripts of this project as processes: the command line, examples, and the children that tests kill. */
import { join, relative, resolve } from 'node:path'

const PROJECT = resolve(import.meta.dirname, '../..')
export const TSX = join(PROJECT, 'node_modules/tsx/dist/esm/index.mjs')

/**
 * What node gets to run a script, by its path or that from the project's root. The test command has compiled all of them: so they
 * start in a third of the time. A single file of tests, run by hand, must not meet what an older build left, and takes the sources.
 */
export function script(path: string): string[] {
  const name = relative(PROJECT, resolve(PROJECT, path))
  return process.env.SLICELOG_BUILT === '1'
    ? [join(PROJECT, 'dist', name.replace(/\.ts$/, '.js'))]
    : ['--import', TSX, join(PROJECT, name)]
}
