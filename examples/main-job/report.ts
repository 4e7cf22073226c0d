/** What the demo shows at its end: tables, the strip picture, and which commands to try next, with values that exist. */

import type { VerifyReport } from '../../src/audit/verify.ts'
import { backupTable } from '../../src/cli/render/backups.ts'
import type { Paint } from '../../src/cli/render/paint.ts'
import { sliceRows } from '../../src/cli/render/slices.ts'
import { stripPicture } from '../../src/cli/render/strip.ts'
import { facts, table } from '../../src/cli/render/table.ts'
import * as text from '../../src/cli/render/text.ts'
import type { BackupInfo, Changed, Plan, SlicesInfo, Store } from '../../src/index.ts'
import type { StepDone } from './replay.ts'
import { BITMAP, CHECKPOINT, DISK } from './schedule.ts'

/** What the hottest slice of this trace is, for who wonders. */
const TRIM_NOTE =
  'Slice 5 holds an fstrim of the whole file system: a discard dirties what it touches, as a write does.'

export function title(paint: Paint, words: string): string {
  return `\n${paint.colors.bold(words)}\n`
}

export function stepsText(paint: Paint, steps: readonly StepDone[]): string {
  return table(
    paint,
    ['time', 'what', 'outcome'],
    steps.map(({ time, what, outcome }) => [clockTime(time), what, outcome]),
  )
}

export function backupsText(paint: Paint, store: Store): string {
  return backupTable(paint, [...store.backups()])
}

export async function slicesText(paint: Paint, store: Store): Promise<string> {
  const slices = await store.disk(DISK).bitmap(BITMAP).slices()
  const view = await store.at('now')
  const picture = stripPicture(paint, await sliceRows(paint, view, DISK, BITMAP, slices))
  return `${sliceTable(paint, slices)}\n\n${picture}\n${paint.colors.dim(TRIM_NOTE)}`
}

function sliceTable(paint: Paint, { slices }: SlicesInfo): string {
  return table(
    paint,
    ['>slice', '>dirty', 'digest', 'from', 'to'],
    slices.map(({ slice, count, digest, from, to }) => [
      slice,
      text.bytes(count),
      text.shortDigest(digest),
      text.point(from),
      text.point(to),
    ]),
  )
}

export function changedText(paint: Paint, changed: Changed): string {
  return facts(paint, [
    ['since', text.point(changed.since)],
    ['until', text.point(changed.until)],
    [
      'changed',
      `${text.bytes(changed.bytes)} in ${text.plural(changed.extents.length, 'extent')}, at ${text.bytes(changed.granularity)} a bit`,
    ],
    ['answer', `${changed.resolution}, ${changed.complete ? 'complete' : 'incomplete'}`],
    ['digest', changed.digest],
  ])
}

export interface ReplayedPlan {
  readonly backup: BackupInfo
  readonly plan: Plan
}

export function replayedText(paint: Paint, replayed: readonly ReplayedPlan[]): string {
  return table(
    paint,
    ['backup', 'mode', '>to copy', 'planned then', 'replayed now', ''],
    replayed.map(({ backup, plan }) => [
      backup.id,
      backup.mode,
      text.bytes(plan.bytes),
      text.shortDigest(backup.digest ?? '-'),
      text.shortDigest(plan.digest),
      plan.digest === backup.digest
        ? { text: 'equal', color: paint.colors.green }
        : { text: 'DIFFERENT', color: paint.colors.red },
    ]),
  )
}

export function verifyText(paint: Paint, report: VerifyReport): string {
  const { colors } = paint
  const checked = `${text.plural(report.events, 'event')} in ${text.plural(report.records, 'record')}`
  const verdict =
    report.findings.length === 0
      ? colors.green('sound')
      : colors.red(text.plural(report.findings.length, 'finding'))
  return `${verdict}: ${checked}, chain ${text.shortDigest(report.head.hash)}`
}

/** Commands that work on the store as it lies there now. */
export function nextText(paint: Paint, folder: string, moment: string): string {
  const commands = [
    ['what it holds', 'status'],
    ['the slices again', `slice ls ${DISK} ${BITMAP}`],
    ['the disk at a moment of the past', `bitmap show ${DISK} ${BITMAP} --at ${moment}`],
    [
      'what changed between two moments',
      `changed ${DISK} --since checkpoint:${CHECKPOINT} --until backup:incr-6`,
    ],
    ['a backup that was never made', `backup plan ${DISK} ${BITMAP} --mode differential --since slice:3`],
    ['every step, newest first', 'log --type backup-begun,slice-dropped,slice-merged --reverse'],
    ['the last writes to one place', 'log --range 128M+64K --reverse --limit 5'],
    ['a plan of the past, again', 'replay partial-1'],
    ['why a backup is so large', 'explain partial-1'],
    ['who wrote here, and which backups have it', `blame ${DISK} 300M 64K --limit 5`],
    ['what can be restored', `coverage ${DISK}`],
    ['what it costs to lose a backup', 'backup forget incr-5 --dry-run'],
  ]
  const width = Math.max(...commands.map(([what]) => what!.length))
  return commands
    .map(
      ([what, command]) =>
        `  ${paint.colors.dim(what!.padEnd(width))}  npx slicelog --store ${folder} ${command}`,
    )
    .join('\n')
}

function clockTime(ms: number): string {
  return new Date(ms).toISOString().slice(11, 23)
}
