import { expect, test } from 'vitest'
import { given } from '../../src/testing/given.ts'
import { bitmapAdded, daily, diskAdded } from './kit.ts'

const bank = { type: 'bank', ...daily } as const

test('R21: the kit tells other events from those expected', () => {
  expect(() => given().when({ type: 'add-disk', disk: 'vda', size: 1 }).then(diskAdded('vda', 2))).toThrow(
    /deep/,
  )
  expect(() => given().when({ type: 'add-disk', disk: 'vda', size: 1 }).thenNothing()).toThrow()
  expect(() => given().when(bank).thenNothing()).toThrow(/does not exist/)
})

test('R21: the kit tells a refusal from an acceptance, and one refusal from another', () => {
  expect(() => given().when({ type: 'add-disk', disk: 'vda', size: 1 }).thenRefused('DISK_EXISTS')).toThrow(
    /accepted/,
  )
  expect(() => given().when(bank).thenRefused('DISK_EXISTS')).toThrow(/DISK_NOT_FOUND/)
  expect(() =>
    given(diskAdded(), bitmapAdded()).when(bank).thenRefused('RETENTION_ZERO', { bitmap: 'other' }),
  ).toThrow()
})

test('R21: what is no refusal is not taken for one', () => {
  const broken = { type: 'add-disk', disk: 1, size: 1 } as never
  expect(() => given().when(broken).thenRefused('NAME_INVALID')).toThrow(TypeError)
})

test('awaiting a then is refused, since it would wait for ever', async () => {
  await expect(
    async () => await (given().when({ type: 'abort' }) as unknown as Promise<unknown>),
  ).rejects.toThrow(/synchronous/)
})
