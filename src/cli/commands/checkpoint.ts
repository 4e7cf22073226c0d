/** `checkpoint create|delete|ls`. */
import type { Command } from 'commander'
import type { CheckpointDeleted } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { type BitmapReference, collectBitmaps } from '../parse.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { checkpointDeletedShape, checkpointShape } from '../shapes.ts'
import { bitmapMeant, viewBefore } from '../view.ts'

/** What `DISK:BITMAP` may mean. */
type Meanings = readonly BitmapReference[]

export function checkpointCommands(program: Command, session: Session): void {
  const family = program.command('checkpoint').description('names for positions of the log')
  withExamples(
    family
      .command('create')
      .description('name the present moment; bitmaps that are named are banked there')
      .argument('<name>')
      .argument('[bitmaps...]', 'DISK:BITMAP', collectBitmaps)
      .option('--force-cycle', 'drop the oldest slices where retention is full'),
    [
      'slicelog --store ./state checkpoint create before-upgrade',
      'slicelog --store ./state checkpoint create monday vm-17/vda:daily',
    ],
  ).action((name: string, bitmaps: readonly Meanings[] | undefined, options: { forceCycle?: boolean }) =>
    create(session, name, bitmaps ?? [], options.forceCycle === true),
  )
  withExamples(
    family
      .command('delete')
      .description('forget a name, and the points that only it kept')
      .argument('<name>'),
    ['slicelog --store ./state checkpoint delete monday'],
  ).action((name: string) => remove(session, name))
  withExamples(family.command('ls').description('list the checkpoints'), [
    'slicelog --store ./state checkpoint ls --json',
  ]).action(() => list(session))
}

async function create(
  session: Session,
  name: string,
  wanted: readonly Meanings[],
  forceCycle: boolean,
): Promise<void> {
  await session.withStore(async (store) => {
    const then = wanted.length === 0 ? store : await viewBefore(store, session.commandOptions.commandId)
    const bitmaps = wanted.map((meanings) => bitmapMeant(then, meanings))
    const made = await store.createCheckpoint(name, { bitmaps, forceCycle }, session.commandOptions)
    await session.confirm(checkpointShape(made), () => `Checkpoint ${name} is ${text.point(made.point)}.`)
  })
}

async function remove(session: Session, name: string): Promise<void> {
  await session.withStore(async (store) => {
    const deleted = await store.deleteCheckpoint(name, session.commandOptions)
    await session.confirm(checkpointDeletedShape(deleted), () => [
      `Deleted checkpoint ${name}.`,
      ...deleted.merged.map(({ disk, bitmap, slice, into }) =>
        into === null
          ? `Slice ${slice} of ${disk}:${bitmap} was the oldest and is dropped.`
          : `Slice ${slice} of ${disk}:${bitmap} went into ${into}.`,
      ),
      ...deleted.kept.map(
        ({ disk, bitmap, for: keeper }) => `The point on ${disk}:${bitmap} stays: ${keeperText(keeper)}.`,
      ),
      ...deleted.gone.map(({ disk, bitmap }) => `The point on ${disk}:${bitmap} was gone already.`),
    ])
  })
}

async function list(session: Session): Promise<void> {
  await session.withStore(async (store) => {
    const checkpoints = [...store.checkpoints()]
    await session.answer({ checkpoints: checkpoints.map(checkpointShape) }, () =>
      checkpoints.length === 0
        ? 'No checkpoints. Make one with: slicelog checkpoint create NAME'
        : table(
            session.paint,
            ['checkpoint', 'point', 'banked bitmaps'],
            checkpoints.map(({ name, point, bitmaps }) => [
              name,
              text.point(point),
              bitmaps.map(({ disk, bitmap }) => `${disk}:${bitmap}`).join(' ') || '-',
            ]),
          ),
    )
  })
}

function keeperText(keeper: CheckpointDeleted['kept'][number]['for']): string {
  switch (keeper.kind) {
    case 'checkpoint':
      return `checkpoint ${keeper.name} shares it`
    case 'backup':
      return `backup ${keeper.id} began there`
    case 'active':
      return 'the active slice begins there, and nothing older is left that it could join'
  }
}
