/** `incident`: a real history as a small file for a test, and what such a file holds. Playing it is `slicelog/testing`'s. */
import type { Command } from 'commander'
import { parsePoint } from '../../store/points.ts'
import type { IncidentInfo } from '../../testing/incident-file.ts'
import { readIncident } from '../../testing/player.ts'
import { type RecordOptions, recordIncidentFile } from '../../testing/recorder.ts'
import { withExamples } from '../help.ts'
import { collectWords, parseTime } from '../parse.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

interface ExportOptions {
  readonly from?: string
  readonly to?: string
  readonly disk?: readonly string[]
  readonly anonymise?: boolean
  readonly epoch?: string
}

export function incidentCommands(program: Command, session: Session): void {
  const incident = program.command('incident').description('export a history as a file that a test can play')
  withExamples(
    incident
      .command('export')
      .description('write the history, or a part of it, into a new file')
      .argument('<file>', 'by custom NAME.slicelog-incident')
      .option('--from <point>', 'fold writes up to here into windows (default: start)')
      .option('--to <point>', 'end here (default: now)')
      .option('--disk <disks>', 'only these disks (repeat, or separate by commas)', collectWords)
      .option('--anonymise', 'replace names, ids, actors and reasons by made-up ones, for good')
      .option('--epoch <time>', 'move all times so that the first event happens then'),
    [
      'slicelog --store ./state incident export wrong-plan.slicelog-incident --anonymise',
      'slicelog --store ./state incident export week.slicelog-incident --from 2026-11-11 --disk vm-17/vda',
    ],
  ).action((file: string, options: ExportOptions) => exportTo(session, session.path(file), options))
  withExamples(
    incident
      .command('info')
      .description('check an incident file and say what it holds; needs no store')
      .argument('<file>', 'an exported incident'),
    ['slicelog incident info wrong-plan.slicelog-incident --json'],
  ).action((file: string) => info(session, file))
}

async function exportTo(session: Session, file: string, options: ExportOptions): Promise<void> {
  const { from, to, disk, anonymise, epoch } = options
  const asked: RecordOptions = {
    ...(from === undefined ? {} : { from: parsePoint(from) }),
    ...(to === undefined ? {} : { to: parsePoint(to) }),
    ...(disk === undefined ? {} : { disks: disk }),
    ...(anonymise === undefined ? {} : { anonymise }),
    ...(epoch === undefined ? {} : { epoch: Date.parse(parseTime(epoch)) }),
  }
  await session.withStore(async (store) => {
    const bar = session.progress('incident')
    try {
      const { info: recorded, bytes } = await recordIncidentFile(store, file, {
        ...asked,
        signal: session.signal,
        onProgress: (position, last) => bar.update(position, last),
      })
      bar.stop()
      await session.answer({ file, bytes: bytes.length, ...recorded }, () =>
        factsOf(session, recorded, [
          ['file', file],
          ['size', text.bytes(bytes.length)],
        ]),
      )
    } finally {
      bar.stop()
    }
  })
}

async function info(session: Session, file: string): Promise<void> {
  const held = await readIncident(session.path(file))
  await session.answer({ file, ...held }, () => factsOf(session, held, [['file', file]]))
}

function factsOf(
  { paint }: Session,
  info: IncidentInfo,
  first: readonly (readonly [string, string])[],
): string {
  const names = (list: readonly string[]) => (list.length === 0 ? '-' : list.map(text.shown).join(', '))
  return facts(paint, [
    ...first,
    ['events', `${text.count(info.events)} in ${text.plural(info.records, 'record')}`],
    ['exact after', text.point(info.from)],
    ['ends at', text.point(info.to)],
    ['disks', names(info.disks)],
    ['backups', names(info.backups)],
    ['checkpoints', names(info.checkpoints)],
    ['names', info.anonymised ? 'made up' : 'as they were'],
    ['times', info.shifted ? 'moved' : 'as they were'],
  ])
}
