import { describe, expect, test } from 'vitest'
import type { BitmapRef, DomainEvent } from '../../events/types.ts'
import { decideCleanDetach, decideRecovery } from '../../src/commands/lifecycle.ts'
import { given } from '../../src/testing/given.ts'
import { attached, begun, bitmapAdded, daily, diskAdded, weekly, writes } from './kit.ts'

const copying = (backup: string, ref: BitmapRef): DomainEvent => ({
  ...(begun(backup, 'copy', { ref }) as Extract<DomainEvent, { type: 'backup-begun' }>),
  copiedBy: 'store',
})
const calm = { clean: true, bootChanged: false, syncedPosition: -1 }

describe('at open', () => {
  test('R10: a backup that our process copied is interrupted, a caller’s goes on', () => {
    const { catalog } = given(
      diskAdded(),
      bitmapAdded(daily),
      bitmapAdded(weekly),
      begun('theirs', 'copy'),
      copying('ours', weekly),
    )
    for (const clean of [true, false])
      expect(decideRecovery(catalog, { ...calm, clean })).toEqual([
        { type: 'backup-interrupted', backup: 'ours' },
      ])
  })

  test('R10: it is interrupted once, and never when it waits for its group or has ended', () => {
    for (const after of [
      { type: 'backup-interrupted', backup: 'ours' },
      { type: 'backup-pending', backup: 'ours' },
      { type: 'backup-failed', backup: 'ours', reason: '' },
    ] as const) {
      expect(
        decideRecovery(given(diskAdded(), bitmapAdded(weekly), copying('ours', weekly), after).catalog, calm),
      ).toEqual([])
    }
  })

  const two = given(
    diskAdded(),
    attached('vda', 'store'),
    diskAdded('vdb'),
    attached('vdb', 'store'),
    diskAdded('vdc'),
    attached('vdc'),
    writes(5),
  )
  const crash = { clean: false, bootChanged: true, syncedPosition: 5 }

  test('R32: a crash of the process alone costs nothing', () => {
    expect(decideRecovery(two.catalog, { ...crash, bootChanged: false })).toEqual([])
  })

  test('R32, R35: when the log’s tail may be gone with the evidence, every disk that our process wrote counts', () => {
    expect(
      decideRecovery(two.catalog, crash).map((event) => [
        event.type,
        'disk' in event && event.disk,
        'from' in event && event.from,
      ]),
    ).toEqual([
      ['stretch-lost', 'vda', { position: 5, time: null }],
      ['stretch-lost', 'vdb', { position: 5, time: null }],
    ])
  })

  test('R30, R32: at level power a restart costs nothing, nor after a clean end', () => {
    expect(decideRecovery(two.catalog, { ...crash, level: 'power' })).toEqual([])
    expect(decideRecovery(two.catalog, { ...crash, clean: true })).toEqual([])
  })
})

describe('at close', () => {
  test('R4: every attached disk is detached and takes its transient bitmaps along, but for busy ones', () => {
    const held = { disk: 'vda', bitmap: 'held' }
    const { catalog } = given(
      diskAdded(),
      attached(),
      diskAdded('vdb'),
      bitmapAdded(daily, { persistent: false }),
      bitmapAdded(weekly),
      bitmapAdded(held, { persistent: false }),
      bitmapAdded({ disk: 'vdb', bitmap: 'x' }, { persistent: false }),
      begun('b', 'copy', { ref: held }),
    )
    expect(decideCleanDetach(catalog, ['vda', 'vdb', 'gone'])).toEqual([
      { type: 'bitmap-removed', ...daily, because: 'detach' },
      { type: 'disk-detached', disk: 'vda' },
    ])
  })
})
