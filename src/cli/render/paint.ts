/** What a terminal can show: colours (never when piped, nor with NO_COLOR), block characters, its width. */
import pc from 'picocolors'
import type { Output } from '../io.ts'

export interface Paint {
  readonly colors: ReturnType<typeof pc.createColors>
  /** Whether block and line characters arrive as such. */
  readonly unicode: boolean
  /** Columns that a picture may take. */
  readonly width: number
  /** Columns of the terminal, which no line of a table may pass; without end where there is none. */
  readonly columns: number
}

const WIDTH_PIPED = 100
const WIDTH_MAX = 160

export function paintFor(output: Output, env: Readonly<Record<string, string | undefined>>): Paint {
  const terminal = output.isTTY === true && env.TERM !== 'dumb'
  const colour = terminal && (env.NO_COLOR ?? '') === ''
  const width = Math.min(output.columns ?? WIDTH_PIPED, WIDTH_MAX)
  const columns =
    output.isTTY === true && (output.columns ?? 0) > 0 ? output.columns! : Number.POSITIVE_INFINITY
  return { colors: pc.createColors(colour), unicode: speaksUnicode(env), width, columns }
}

function speaksUnicode(env: Readonly<Record<string, string | undefined>>): boolean {
  if (env.TERM === 'linux' || env.TERM === 'dumb') return false
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || ''
  return /utf-?8/i.test(locale)
}
