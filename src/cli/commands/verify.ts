/** `verify`: prove the log sound from its first record on, and every past plan with it. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import type { Anchor } from '../../audit/head.ts'
import { type VerifyOptions, type VerifyReport, verifyStore } from '../../audit/verify.ts'
import { verifyLive } from '../../audit/verify-live.ts'
import { messageOf } from '../../errors.ts'
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
        'a head saved earlier with `head --json`, or POSITION:HASH: finds a log that was cut or rewritten',
      )
      .option(
        '--since <cursor>',
        'only what follows a head that an earlier `verify --json` or `head --json` saved, or POSITION:HASH: for every night',
      ),
    [
      'slicelog --store ./state verify',
      'slicelog --store ./state verify --against head.json --json',
      'slicelog --store ./state verify --since last-night.json --json > tonight.json',
    ],
  ).action((options: VerifyChoices) => verify(session, options))
}

interface VerifyChoices {
  readonly against?: string
  readonly since?: string
}

async function verify(session: Session, choices: VerifyChoices): Promise<void> {
  const { against, since } = await readHeads(session, choices)
  const bar = session.progress('verify')
  const options: VerifyOptions = {
    ...(against === undefined ? {} : { against }),
    ...(since === undefined ? {} : { since }),
    signal: session.signal,
    onProgress: (position, total) => bar.update(position, total),
  }
  const report = await session
    .withFolder(
      (folder) => verifyStore(folder, options),
      (store) => verifyLive(store, options),
    )
    .finally(() => bar.stop())
  if (report.findings.length > 0) session.setExit(EXIT.damage)
  await session.answer(report, () => forPeople(session, report))
}

function forPeople(session: Session, report: VerifyReport): string {
  const { colors } = session.paint
  const walked = report.events - 1 - (report.since ?? -1)
  const since = report.since === null ? '' : ` after @${report.since}`
  const checked = `${text.plural(walked, 'event')}${since} in ${text.plural(report.records, 'record')}, head ${text.point(report.head)}`
  const note = report.note === null ? [] : [report.note]
  if (report.findings.length === 0)
    return [`${colors.green('sound')}: ${checked}`, ...note, report.head.hash].join('\n')
  const found = report.findings.map(({ code, position, record, doubt, todo }) =>
    [
      `${colors.red(code)}${position === null ? '' : ` at @${position}`}${record === null ? '' : `, record ${record}`}`,
      ...(doubt.length === 0 ? [] : [`  in doubt: ${text.shown(doubt.join(', '))}`]),
      `  ${text.shown(todo)}`,
    ].join('\n'),
  )
  return [
    `${colors.red(text.plural(report.findings.length, 'finding'))}: ${checked}`,
    ...note,
    ...found,
  ].join('\n')
}

/** Each file once, whoever answers in the end and however often it is named: it may be a pipe. */
async function readHeads(
  session: Session,
  choices: VerifyChoices,
): Promise<{ readonly against?: Anchor; readonly since?: Anchor }> {
  const read = new Map<string, Anchor>()
  const heads: { against?: Anchor; since?: Anchor } = {}
  for (const option of ['against', 'since'] as const) {
    const words = choices[option]
    if (words === undefined) continue
    const head = read.get(words) ?? headInWords(words) ?? (await readHead(session.path(words)))
    read.set(words, head)
    heads[option] = head
    session.sayInstead(`--${option}`, `${head.position}:${head.hash}`)
  }
  return heads
}

function headInWords(words: string): Anchor | undefined {
  const [, position, hash] = /^(-1|\d{1,15}):([0-9a-f]{64})$/i.exec(words) ?? []
  return hash === undefined ? undefined : { position: Number(position), hash: hash.toLowerCase() }
}

/** @throws UsageError when the file is not a head as `head --json` prints it, nor a report as `verify --json` does. */
async function readHead(file: string): Promise<Anchor> {
  const words = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new UsageError(`The saved head ${file} cannot be read: ${messageOf(error)}`)
  })
  const parsed = parseJson(words)
  const saved = typeof parsed === 'object' && parsed !== null && 'head' in parsed ? parsed.head : parsed
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
