/** `disk add|resize|remove|detach|lost|ls`. */
import type { Command } from 'commander'
import { parsePoint } from '../../store/points.ts'
import type { Store } from '../../store/store.ts'
import type { DiskInfo, PointInput } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { parseSize } from '../parse.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { diskShape } from '../shapes.ts'
import { viewAfter, viewBefore } from '../view.ts'
import { diskMoveCommands } from './disk-move.ts'

export function diskCommands(program: Command, session: Session): void {
  const family = program.command('disk').description('the disks whose writes are recorded')
  withExamples(
    family
      .command('add')
      .description('add a disk')
      .argument('<disk>', "the disk's id")
      .requiredOption('--size <size>', 'its size in bytes', parseSize),
    ['slicelog --store ./state disk add vm-17/vda --size 64G'],
  ).action((disk: string, options: { size: number }) => add(session, disk, options.size))
  withExamples(
    family
      .command('resize')
      .description('record that a disk was resized')
      .argument('<disk>')
      .argument('<size>', 'the new size', parseSize),
    ['slicelog --store ./state disk resize vm-17/vda 128G'],
  ).action((disk: string, size: number) => resize(session, disk, size))
  withExamples(
    family
      .command('remove')
      .description('remove a disk and its bitmaps; the log keeps its past')
      .argument('<disk>'),
    ['slicelog --store ./state disk remove vm-17/vda'],
  ).action((disk: string) => remove(session, disk))
  withExamples(
    family.command('detach').description('say that nothing writes to the disk any more').argument('<disk>'),
    ['slicelog --store ./state disk detach vm-17/vda'],
  ).action((disk: string) => detach(session, disk))
  withExamples(
    family
      .command('lost')
      .description(
        'declare that writes may have gone unrecorded: answers that reach back before it cover the whole disk',
      )
      .argument('<disk>')
      .requiredOption('--reason <text>', 'why, as every answer will say')
      .option('--since <point>', "from when on (default: the disk's last event)", parsePoint),
    ['slicelog --store ./state disk lost vm-17/vda --reason "started without the agent" --since @1200'],
  ).action((disk: string, options: { reason: string; since?: PointInput }) => lost(session, disk, options))
  diskMoveCommands(family, session)
  withExamples(family.command('ls').description('list the disks'), [
    'slicelog --store ./state disk ls',
  ]).action(() => list(session))
}

async function add(session: Session, disk: string, size: number): Promise<void> {
  await session.withStore(async (store) => {
    await store.addDisk(disk, { size }, session.commandOptions)
    const info = await answered(session, store, disk)
    await session.confirm(diskShape(info), () => `Added ${disk}, ${text.bytes(size)}.`)
  })
}

async function resize(session: Session, disk: string, size: number): Promise<void> {
  await session.withStore(async (store) => {
    const { commandId } = session.commandOptions
    const held = commandId === undefined ? store.disk(disk).size : undefined
    await store.disk(disk).resize(size, session.commandOptions)
    // Not before: until it is accepted, the id may be another command's.
    const was = held ?? (await viewBefore(store, commandId)).diskInfo(disk).size
    await session.confirm(
      diskShape(await answered(session, store, disk)),
      () => `Resized ${disk} from ${text.bytes(was)} to ${text.bytes(size)}.`,
    )
  })
}

async function remove(session: Session, disk: string): Promise<void> {
  await session.withStore(async (store) => {
    await store.removeDisk(disk, session.commandOptions)
    await session.confirm({ disk, removed: true }, () => `Removed ${disk}.`)
  })
}

async function detach(session: Session, disk: string): Promise<void> {
  await session.withStore(async (store) => {
    await store.disk(disk).detach(session.commandOptions)
    await session.confirm(diskShape(await answered(session, store, disk)), () => `Detached ${disk}.`)
  })
}

async function lost(
  session: Session,
  disk: string,
  options: { reason: string; since?: PointInput },
): Promise<void> {
  await session.withStore(async (store) => {
    const from = options.since === undefined ? {} : { from: options.since }
    await store.disk(disk).declareLost(options.reason, from, session.commandOptions)
    const info = await answered(session, store, disk)
    await session.confirm(
      diskShape(info),
      () => `Declared lost on ${disk}: ${text.lost(info.lost.slice(-1))}.`,
    )
  })
}

async function answered(session: Session, store: Store, disk: string): Promise<DiskInfo> {
  return (await viewAfter(store, session.commandOptions.commandId)).diskInfo(disk)
}

async function list(session: Session): Promise<void> {
  await session.withStore(async (store) => {
    const disks = store.disks()
    await session.answer({ disks: disks.map(diskShape) }, () =>
      disks.length === 0
        ? 'No disks. Add one with: slicelog disk add DISK --size SIZE'
        : table(
            session.paint,
            ['disk', '>size', 'attached', '>bitmaps', 'last event', 'lost'],
            disks.map((disk) => [
              disk.disk,
              text.bytes(disk.size),
              disk.attached ? 'yes' : 'no',
              disk.bitmaps.length,
              text.point(disk.last),
              text.lost(disk.lost) || '-',
            ]),
          ),
    )
  })
}
