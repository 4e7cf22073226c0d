/** `verify`: prove the log sound from its first record on, and every past plan with it. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { type VerifyReport, verifyStore } from '../../audit/verify.ts'
import { EXIT, UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

export function verifyCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('verify')
      .description(
        'check every record, the chain, the head and every past plan; exit code 12 when something is found',
      )
      .option(
        '--against <file>',
        'a head saved earlier with `head --json`: finds a log that was cut or rewritten',
      ),
    ['slicelog --store ./state verify', 'slicelog --store ./state verify --against head.json --json'],
  ).action((options: { against?: string }) => verify(session, options.against))
}

async function verify(session: Session, file: string | undefined): Promise<void> {
  const against = file === undefined ? undefined : await readHead(file)
  const bar = session.progress('verify')
  const report = await verifyStore(session.folder, {
    ...(against === undefined ? {} : { against }),
    signal: session.signal,
    onProgress: (position, total) => bar.update(position, total),
  }).finally(() => bar.stop())
  if (report.findings.length > 0) session.setExit(EXIT.damage)
  await session.answer(report, () => forPeople(session, report))
}

function forPeople(session: Session, report: VerifyReport): string {
  const { colors } = session.paint
  const checked = `${text.plural(report.events, 'event')} in ${text.plural(report.records, 'record')}, head ${text.point(report.head)}`
  if (report.findings.length === 0) return `${colors.green('sound')}: ${checked}\n${report.head.hash}`
  const found = report.findings.map(({ code, position, record, doubt, todo }) =>
    [
      `${colors.red(code)}${position === null ? '' : ` at @${position}`}${record === null ? '' : `, record ${record}`}`,
      ...(doubt.length === 0 ? [] : [`  in doubt: ${text.shown(doubt.join(', '))}`]),
      `  ${text.shown(todo)}`,
    ].join('\n'),
  )
  return [`${colors.red(text.plural(report.findings.length, 'finding'))}: ${checked}`, ...found].join('\n')
}

/** @throws UsageError when the file is not a head as `head --json` prints it. */
async function readHead(file: string): Promise<{ position: number; hash: string }> {
  const words = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new UsageError(
      `The saved head ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    )
  })
  const saved = parseJson(words)
  if (typeof saved === 'object' && saved !== null && 'position' in saved && 'hash' in saved) {
    const { position, hash } = saved
    if (Number.isSafeInteger(position) && typeof hash === 'string' && /^[0-9a-f]{64}$/.test(hash)) {
      return { position: position as number, hash }
    }
  }
  throw new UsageError(
    `${file} is not a saved head. Make one with: slicelog --store DIR head --json > ${file}`,
  )
}

function parseJson(words: string): unknown {
  try {
    return JSON.parse(words)
  } catch {
    return undefined
  }
}
