/** One line on a terminal that says how things are now, written over itself; nothing where there is no terminal. */
import type { Output } from '../io.ts'
import { cut, shown } from './text.ts'

export interface StatusLine {
  /** False: what is shown goes nowhere. */
  readonly shows: boolean
  show(words: string): void
  /** Before anything else is written there, and at the end. */
  clear(): void
}

const ERASE_LINE = '\r\u001b[K'

export function statusLine(output: Output): StatusLine {
  const shows = output.isTTY === true
  let there = false
  return {
    shows,
    show(words) {
      if (!shows) return
      // A terminal that has no size says 0 columns, and one that is told to write in its last column may go on to the next line.
      output.write(ERASE_LINE + cut(shown(words), Math.max(1, (output.columns || 80) - 1)))
      there = true
    },
    clear() {
      if (there) output.write(ERASE_LINE)
      there = false
    },
  }
}
