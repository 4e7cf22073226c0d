/** `backup plan|begin|succeed|fail|cancel|ls`. Moving the bytes is the caller's: begin gives the plan, the rest says how it went. */
import { type Command, Option } from 'commander'
import type { BackupMode } from '../../../events/types.ts'
import { parseSince } from '../../store/points.ts'
import type { Plan, SinceInput } from '../../store/types.ts'
import { UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { backupTable } from '../render/backups.ts'
import { extentTable } from '../render/extents.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { backupShape, endShape, planShape } from '../shapes.ts'
import { viewAfter } from '../view.ts'
import { copyCommands } from './backup-copies.ts'
import { dropped } from './slice.ts'

const MODES: readonly BackupMode[] = ['full', 'incremental', 'differential', 'copy']

interface PlanOptions {
  readonly mode: BackupMode
  readonly since?: SinceInput
  readonly forceCycle?: boolean
  readonly id?: string
}

export function backupCommands(program: Command, session: Session): void {
  const family = program.command('backup').description('backups of a disk, each over one bitmap')
  withExamples(
    planArguments(family.command('plan').description('what a backup would copy; records nothing')),
    [
      'slicelog --store ./state backup plan vm-17/vda daily --mode incremental',
      'slicelog --store ./state backup plan vm-17/vda daily --mode differential --since slice:4 --json',
    ],
  ).action((disk: string, bitmap: string, options: PlanOptions) => plan(session, disk, bitmap, options))
  withExamples(planArguments(family.command('begin').description('begin a backup and get its plan')), [
    'slicelog --store ./state backup begin vm-17/vda daily --mode full --id first --json',
    'slicelog --store ./state backup begin vm-17/vda daily --mode incremental --force-cycle',
  ]).action((disk: string, bitmap: string, options: PlanOptions) => begin(session, disk, bitmap, options))
  withExamples(
    family.command('succeed').description('the bytes are safe: the point becomes a slice').argument('<id>'),
    ['slicelog --store ./state backup succeed first'],
  ).action((id: string) => succeed(session, id))
  for (const verb of ['fail', 'cancel'] as const) {
    withExamples(
      family
        .command(verb)
        .description(
          `${verb === 'fail' ? 'it failed' : 'it was given up'}: everything is as it was before the begin`,
        )
        .argument('<id>')
        .option('--reason <text>', 'why, for the log'),
      [`slicelog --store ./state backup ${verb} first --reason "target is full"`],
    ).action((id: string, options: { reason?: string }) => end(session, verb, id, options.reason))
  }
  copyCommands(family, session)
  withExamples(
    family
      .command('ls')
      .description('list the backups')
      .option('--disk <disk>', 'only of this disk')
      .option('--state <state>', 'only in this state'),
    ['slicelog --store ./state backup ls', 'slicelog --store ./state backup ls --state running --json'],
  ).action((options: { disk?: string; state?: string }) => list(session, options))
}

function planArguments(command: Command): Command {
  return command
    .argument('<disk>')
    .argument('<bitmap>')
    .addOption(new Option('--mode <mode>', 'what kind').choices(MODES).makeOptionMandatory())
    .option(
      '--since <point>',
      "the base: a POINT, or active for the active slice's bits as they are",
      parseSince,
    )
    .option('--force-cycle', 'on success drop the oldest slice if retention is full')
    .option('--id <id>', "the backup's name, unique for ever (default: one is made)")
}

async function plan(session: Session, disk: string, bitmap: string, options: PlanOptions): Promise<void> {
  await session.withStore(async (store) => {
    const { mode, since, forceCycle } = options
    const made = await store.plan({
      disk,
      bitmap,
      mode,
      ...(since === undefined ? {} : { since }),
      ...(forceCycle === undefined ? {} : { forceCycle }),
    })
    await session.answer(planShape(made), () => planText(session, made))
  })
}

async function begin(session: Session, disk: string, bitmap: string, options: PlanOptions): Promise<void> {
  await session.withStore(async (store) => {
    const backup = await store.disk(disk).beginBackup({ bitmap, ...options }, session.commandOptions)
    const then = await viewAfter(store, session.commandOptions.commandId)
    const { state } = then.backups().find(({ id }) => id === backup.id) ?? backup.info
    await session.answer({ id: backup.id, state, ...planShape(backup.plan) }, () =>
      [
        facts(session.paint, [
          ['backup', backup.id],
          ['state', state],
        ]),
        planText(session, backup.plan),
        '',
        `Copy these extents, then: slicelog backup succeed ${text.shown(backup.id)} (or fail, or cancel)`,
      ].join('\n'),
    )
  })
}

function planText(session: Session, made: Plan): string {
  return [
    facts(session.paint, [
      ['disk', made.disk],
      ['bitmap', `${made.bitmap}, generation ${made.generation}`],
      ['mode', made.mode],
      [
        'base',
        made.base.kind === 'none' ? 'whole disk' : `${text.base(made.base)} (${text.point(made.base)})`,
      ],
      ['point', text.point(made.point)],
      ['to copy', `${text.bytes(made.bytes)} in ${text.plural(made.extents.length, 'extent')}`],
      ['complete', made.complete ? 'yes' : 'no'],
      ...(made.lost.length === 0 ? [] : [['lost', text.lost(made.lost)] as const]),
      ...text.clockSteps(made.clockSteps),
      ['digest', made.digest],
      ['reason', made.reason],
    ]),
    extentTable(session.paint, made.extents),
  ].join('\n')
}

async function succeed(session: Session, id: string): Promise<void> {
  await session.withStore(async (store) => {
    const answer = await store.backup(id).succeed(session.commandOptions)
    const made = answer.slice === null ? '' : ` Its writes are slice ${answer.slice}.`
    const told =
      answer.state === 'pending' ? `${id} is done and waits for the others of its group.` : `${id} succeeded.`
    await session.confirm(endShape(answer), () => `${told}${made}${dropped(answer.droppedSlices)}`)
  })
}

async function end(
  session: Session,
  verb: 'fail' | 'cancel',
  id: string,
  reason: string | undefined,
): Promise<void> {
  await session.withStore(async (store) => {
    const backup = store.backup(id)
    const answer =
      verb === 'fail'
        ? await backup.fail(reason ?? 'no reason given', session.commandOptions)
        : await backup.cancel(reason, session.commandOptions)
    await session.confirm(
      endShape(answer),
      () => `${id} is ${answer.state}; its bitmap is as it was before the begin.`,
    )
  })
}

const STATES = ['running', 'pending', 'interrupted', 'succeeded', 'failed', 'cancelled'] as const

async function list(session: Session, options: { disk?: string; state?: string }): Promise<void> {
  const state = STATES.find((name) => name === options.state)
  if (options.state !== undefined && state === undefined)
    throw new UsageError(`--state is one of ${STATES.join(', ')}.`)
  await session.withStore(async (store) => {
    const filter = {
      ...(options.disk === undefined ? {} : { disk: options.disk }),
      ...(state === undefined ? {} : { state }),
    }
    const backups = [...store.backups(filter)]
    await session.answer({ backups: backups.map(backupShape) }, () =>
      backups.length === 0 ? 'No backups.' : backupTable(session.paint, backups),
    )
  })
}
