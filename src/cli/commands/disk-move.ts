/** `disk export|import`: one disk's history to another store. */
import { type Command, Option } from 'commander'
import { type ImportedDisk, importDisk } from '../../audit/disk-import.ts'
import { type Exported, exportDisk, type Proof, proveExport } from '../../store/disk-export.ts'
import { EXIT, UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

/** Stretches of the table of positions that people are shown; programs get all. */
const POSITIONS_SHOWN = 12

interface ImportChoices {
  readonly as?: string
  readonly prefix?: string
  readonly collapseTimes?: boolean
}

export function diskMoveCommands(family: Command, session: Session): void {
  withExamples(
    family
      .command('export')
      .description("write a disk's whole history to a file, chain and all, to be imported into another store")
      .argument('<disk>')
      .argument('<file>', 'a file that does not exist yet')
      .addOption(
        new Option('--verify', 'prove an export made earlier against this store instead of making one'),
      ),
    [
      'slicelog --store ./state disk export vm-17/vda vm-17-vda.slicelog',
      'slicelog --store ./state disk export vm-17/vda vm-17-vda.slicelog --verify',
    ],
  ).action((disk: string, file: string, options: { verify?: boolean }) =>
    options.verify === true ? prove(session, disk, file) : write(session, disk, file),
  )
  withExamples(
    family
      .command('import')
      .description("append another store's disk with its whole history; all of it or nothing")
      .argument('<file>', 'what `disk export` wrote')
      .option('--as <disk>', "the disk's id here (default: as it was)")
      .option('--prefix <text>', 'goes before the ids of its backups and the names of its checkpoints')
      .option(
        '--collapse-times',
        "give everything this log's time, when the log has later events; the disk's points by time are lost",
      ),
    [
      'slicelog --store ./state disk import vm-17-vda.slicelog',
      'slicelog --store ./state disk import vm-17-vda.slicelog --as vm-18/vda --prefix from-17-',
    ],
  ).action((file: string, options: ImportChoices) => read(session, file, options))
}

async function write(session: Session, disk: string, file: string): Promise<void> {
  await session.withStore(async (store) => {
    const bar = session.progress('export')
    const exported = await exportDisk(store, disk, session.path(file), {
      signal: session.signal,
      onProgress: (position, total) => bar.update(position + 1, total),
    }).finally(() => bar.stop())
    await session.answer(exported, () => written(session, exported))
  })
}

function written(session: Session, exported: Exported): string {
  return facts(session.paint, [
    ['disk', text.shown(exported.disk)],
    ['file', text.shown(exported.file)],
    ['events', `${text.count(exported.events)} in ${text.plural(exported.records, 'record')}`],
    ['of store', exported.store],
    ['at its head', text.point(exported.head)],
    ['hash', exported.head.hash],
    ['digest', exported.digest],
  ])
}

async function prove(session: Session, disk: string, file: string): Promise<void> {
  await session.withStore(async (store) => {
    const proof = await proveExport(store, session.path(file))
    if (proof.kind === 'differs') session.setExit(EXIT.damage)
    await session.answer({ disk, file, ...proof }, () => inWords(session, proof))
  })
}

function inWords(session: Session, proof: Proof): string {
  const { colors } = session.paint
  switch (proof.kind) {
    case 'proved':
      return `${colors.green('proved')}: this log gives the very same ${text.plural(proof.records, 'record')}`
    case 'anchored':
      return `${colors.green('anchored')}: ${text.count(proof.anchors)} of ${text.plural(proof.records, 'record')} stand on hashes of this log; the others were compacted since`
    case 'differs':
      return `${colors.red('differs')}: ${text.shown(proof.why)}`
    default:
      throw new Error(`no proof: ${JSON.stringify(proof satisfies never)}`)
  }
}

async function read(session: Session, file: string, options: ImportChoices): Promise<void> {
  if (session.options.commandId !== undefined)
    throw new UsageError(
      'An import appends many records and takes no --command-id; a disk that is there is not imported again.',
    )
  await session.withStore(async (store) => {
    const bar = session.progress('import')
    const imported = await importDisk(store, session.path(file), {
      ...options,
      actor: session.options.actor ?? 'cli',
      signal: session.signal,
      onProgress: (done, total) => bar.update(done, total),
    }).finally(() => bar.stop())
    await session.answer(imported, () => taken(session, imported))
  })
}

function taken(session: Session, imported: ImportedDisk): string {
  const { source, positions } = imported
  const lines = facts(session.paint, [
    ['disk', text.shown(imported.disk)],
    ['from', `disk ${text.shown(source.disk)} of store ${source.store}, at ${text.point(source.head)}`],
    ['events', `${text.count(imported.events)} in ${text.plural(imported.records, 'record')}`],
    ['positions', `@${imported.first} to @${imported.last}`],
    ['backups', imported.backups.length === 0 ? '-' : text.shown(imported.backups.join(', '))],
    ['checkpoints', imported.checkpoints.length === 0 ? '-' : text.shown(imported.checkpoints.join(', '))],
    ...(imported.timesCollapsed
      ? [['times', "all this log's: points by time before the import are lost"] as const]
      : []),
  ])
  const moved = positions
    .slice(0, POSITIONS_SHOWN)
    .map(([from, count, to]) => `  @${from} to @${from + count - 1} there is @${to} and on here`)
  const more = positions.length - moved.length
  return [
    lines,
    'Where its events stand now:',
    ...moved,
    ...(more > 0 ? [`  … and ${more} more; all with --json`] : []),
  ].join('\n')
}
