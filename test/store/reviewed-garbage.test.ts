/** Arguments of wrong types, to everything public: a readable refusal, nothing recorded, and never a bug of ours in disguise. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { CheckpointError } from '../../src/index.ts'
import { proof } from '../support/property.ts'
import { small } from './support.ts'

const garbage = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    undefined,
    Number.NaN,
    -1,
    0.5,
    '',
    'x',
    [],
    {},
    true,
    Symbol.iterator,
    10n,
    () => 1,
  ),
  fc.record({
    disk: fc.constantFrom<unknown>(null, 1, 'vda'),
    bitmap: fc.constantFrom<unknown>(null, 1, 'daily'),
  }),
  fc.record({ position: fc.constantFrom<unknown>(null, 'x', -1, 99) }),
  fc.record({ offset: fc.constantFrom<unknown>(null, 'x', -1), length: fc.constantFrom<unknown>(null, 1n) }),
  fc.array(fc.constantFrom<unknown>(null, undefined, 1, 'x', {}), { maxLength: 2 }),
  fc.record({
    type: fc.constantFrom<unknown>(
      'bank',
      'nope',
      null,
      'begin-backup',
      'create-checkpoint',
      'merge-bitmaps',
    ),
  }),
)

type Callable = (...given: unknown[]) => unknown

test('R21: whatever is given to the library, it refuses in words and records nothing', async () => {
  const { store, disk, bitmap } = await small()
  const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'differential', id: 'b' })
  const targets: [string, object, string[]][] = [
    [
      'store',
      store,
      [
        'ensureDisk',
        'addDisk',
        'disk',
        'removeDisk',
        'transaction',
        'beginBackups',
        'backup',
        'createCheckpoint',
        'deleteCheckpoint',
        'at',
        'changed',
        'plan',
        'replayPlan',
        'resolvePoint',
      ],
    ],
    [
      'disk',
      disk,
      [
        'recordWrites',
        'recordWindow',
        'declareLost',
        'resize',
        'addBitmap',
        'ensureBitmap',
        'bitmap',
        'beginBackup',
        'plan',
        'changed',
      ],
    ],
    ['bitmap', bitmap, ['merge', 'setRetention', 'bank', 'deleteSlice', 'clear', 'bits', 'dirty']],
    ['backup', backup, ['succeed', 'fail', 'cancel', 'resume', 'forget']],
  ]
  const calls = targets.flatMap(([name, on, methods]) => methods.map((method) => ({ name, on, method })))
  const silent = new Set<string>()
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...calls), fc.array(garbage, { maxLength: 3 }), async (call, given) => {
      const before = store.head
      let thrown: unknown
      try {
        await ((call.on as Record<string, Callable>)[call.method] as Callable).apply(call.on, given)
      } catch (error) {
        thrown = error
      }
      if (thrown === undefined) {
        silent.add(`${call.name}.${call.method}`)
        return
      }
      const what = `${call.name}.${call.method}: ${thrown instanceof Error ? thrown.message : 'no error'}`
      expect(
        thrown instanceof CheckpointError || thrown instanceof TypeError || thrown instanceof RangeError,
        what,
      ).toBe(true)
      expect((thrown as Error).message, what).not.toMatch(
        /slicelog bug|Cannot (read|destructure|convert|mix)|is not (a function|iterable)|undefined \(reading|not a valid|Invalid time|of undefined|in operator|BigInt/,
      )
      expect(store.head, what).toEqual(before)
    }),
    proof('garbage arguments', 1500, 40_000),
  )
  await store.close()
})
