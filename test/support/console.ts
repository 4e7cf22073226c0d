/**
 * Worked examples in the documentation, as data: a block fenced as `console` holds commands (`$ …`) and what they print.
 * `console varies`: what it prints depends on the clock or the machine, so only the exit code is promised.
 * A command may end in `# exit N`; `> FILE` at its end keeps what it prints in a file instead.
 */

export interface Example {
  readonly words: readonly string[]
  readonly exit: number
  readonly into: string | null
  readonly output: string
  readonly varies: boolean
  /** Of the command, counted from 1. */
  readonly line: number
}

const FENCE = /^```console( varies)?$/

export function examplesIn(markdown: string): Example[] {
  const examples: Example[] = []
  let varies: boolean | null = null
  let current: { command: string; line: number; output: string[] } | null = null
  const end = (): void => {
    if (current !== null) examples.push(exampleOf(current, varies === true))
    current = null
  }
  markdown.split('\n').forEach((text, index) => {
    const fence = FENCE.exec(text)
    if (varies === null) {
      if (fence !== null) varies = fence[1] !== undefined
    } else if (text === '```') {
      end()
      varies = null
    } else if (text.startsWith('$ ')) {
      end()
      current = { command: text.slice(2), line: index + 1, output: [] }
    } else current?.output.push(text)
  })
  return examples
}

function exampleOf(
  { command, line, output }: { command: string; line: number; output: readonly string[] },
  varies: boolean,
): Example {
  const [, bare = command, exit = '0'] = /^(.*?)\s+# exit (\d+)$/.exec(command) ?? []
  const [, first = bare, into = null] = /^(.*?) > (\S+)$/.exec(bare) ?? []
  return { words: wordsOf(first), exit: Number(exit), into, output: output.join('\n'), varies, line }
}

/** Words as a shell would take them, single and double quotes included. */
export function wordsOf(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, bare]) => single ?? double ?? bare ?? '',
  )
}

/** The same text with the output of one example replaced. */
export function withOutput(markdown: string, { line }: Example, output: string): string {
  const lines = markdown.split('\n')
  let end = line
  while (lines[end] !== '```' && !lines[end]!.startsWith('$ ')) end++
  lines.splice(line, end - line, ...(output === '' ? [] : output.split('\n')))
  return lines.join('\n')
}

/** Without spaces at the ends of lines, which no reader sees and editors take away. */
export function trimmed(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
    .trim()
}
