/** Old events are read as new ones. No type has a second version yet, so these bring chains of their own. */
import { expect, test } from 'vitest'
import { decodeDomain, encodeDomain } from '../../events/domain-codec.ts'
import { RecordTooNew } from '../../events/record.ts'
import { type UpcastChains, upcast } from '../../events/upcast.ts'

const chains: UpcastChains = {
  'disk-added': [
    (fields) => [fields[0], (fields[1] as number) * 512],
    (fields) => [`${String(fields[0])}!`, fields[1]],
  ],
}

test('R34: an old event is upcast step by step when it is read', () => {
  const stored = encodeDomain({}, [{ type: 'disk-added', disk: 'vda', size: 2 }])
  expect(decodeDomain(Uint8Array.from(stored), chains).events).toEqual([
    { type: 'disk-added', disk: 'vda!', size: 1024 },
  ])
})

test('R34: each version enters the chain where it stands', () => {
  expect(upcast('disk-added', 1, ['a', 1], chains)).toEqual(['a!', 512])
  expect(upcast('disk-added', 2, ['a', 1], chains)).toEqual(['a!', 1])
  expect(upcast('disk-added', 3, ['a', 1], chains)).toEqual(['a', 1])
})

test('R34: a version newer than the chain is refused as too new', () => {
  expect(() => upcast('disk-added', 4, [], chains)).toThrow(RecordTooNew)
  expect(() => upcast('disk-removed', 2, [], {})).toThrow(RecordTooNew)
})
