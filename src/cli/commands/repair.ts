/** `repair`: turn damage into lost stretches, keep what was taken out. */
import type { Command } from 'commander'
import { type RepairReport, repairStore } from '../../audit/repair.ts'
import { EXIT } from '../exit.ts'
import { withExamples } from '../help.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

const SHOWN_MAX = 20

export function repairCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('repair')
      .description(
        'turn damage into lost stretches: keep every record that can be proved, tell what is gone, keep aside what is taken out',
      )
      .option('--dry-run', 'say what would be done, and change nothing'),
    ['slicelog --store ./state repair --dry-run', 'slicelog --store ./state repair'],
  ).action((options: { dryRun?: boolean }) => repair(session, options.dryRun === true))
}

async function repair(session: Session, dryRun: boolean): Promise<void> {
  const bar = session.progress('repair')
  const report = await repairStore(session.path(session.folder), {
    dryRun,
    actor: session.options.actor ?? 'cli',
    signal: session.signal,
    onProgress: (phase, done, total) => bar.update(done, total, phase),
  }).finally(() => bar.stop())
  if (report.remaining.length > 0) session.setExit(EXIT.damage)
  await session.answer(report, () => forPeople(session, report))
}

function forPeople(session: Session, report: RepairReport): string {
  const { colors } = session.paint
  const also = report.also.map((words) => `also: ${text.shown(words)}`)
  const head = `head ${text.point(report.head)}`
  if (report.state === 'sound') return `${colors.green('sound')}: nothing to repair, ${head}`
  const dry = report.state === 'damaged'
  const found = report.findings.map(
    ({ code, position }) => `found: ${code}${position === null ? '' : ` at @${position}`}`,
  )
  const lost = report.lost.map(
    ({ first, last, why }) =>
      `lost: @${first} to @${last} (${text.plural(last + 1 - first, 'event')}): ${text.shown(why.join('; '))}`,
  )
  const kept =
    report.removed.values === 0 ? [] : [`taken out: ${text.plural(report.removed.values, 'value')}`]
  const restored =
    report.restored === 0
      ? []
      : [`found again: ${text.plural(report.restored, 'value')} that an older version still had`]
  const disks =
    report.disks.length === 0
      ? []
      : [
          `disks whose answers cover everything when they reach back before the damage: ${text.shown(report.disks.join(', '))}`,
        ]
  const remaining = report.remaining.map(
    ({ code, position, todo }) =>
      `${colors.red('still there')}: ${code}${position === null ? '' : ` at @${position}`}: ${text.shown(todo)}`,
  )
  const end = dry
    ? [colors.yellow('dry run: nothing was changed')]
    : [
        `${colors.green('repaired')}, ${head}`,
        ...(report.kept === null
          ? []
          : [`kept aside: ${text.shown(report.kept)}; delete it when nothing of it is needed`]),
      ]
  return [
    ...few(found),
    ...few(lost),
    ...restored,
    ...kept,
    ...disks,
    ...also,
    ...few(remaining),
    ...end,
  ].join('\n')
}

function few(lines: readonly string[]): readonly string[] {
  return lines.length <= SHOWN_MAX
    ? lines
    : [...lines.slice(0, SHOWN_MAX), `… and ${lines.length - SHOWN_MAX} more; all of them with --json`]
}
