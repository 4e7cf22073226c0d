/** Programs that ask rather than copy (what is there, what can it do), and fio with a traffic of many kinds, against disks that we serve. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { runs } from '../support/property.ts'
import { KiB } from './disk-support.ts'
import { dirtyRanges, granulesOf, run } from './programs-support.ts'
import { type ServedFiles, servedFiles } from './served-files-support.ts'

const MiB = 1024 * KiB
const ODD = 3 * MiB + 7
const DIRTY = 'qemu:dirty-bitmap:'

/** Whether nbdinfo answers yes (exit code 0) or no (2); all else is an error. */
async function says(uri: string, question: string): Promise<boolean> {
  try {
    await run('nbdinfo', ...question.split(' '), uri)
    return true
  } catch (error) {
    if ((error as { code?: number }).code === 2) return false
    throw error
  }
}

describeWithPeers(['nbdinfo', 'nbdcopy', 'nbdkit'], 'nbdinfo', () => {
  const CAN = ['read', 'cache', 'df', 'flush', 'fua', 'multi-conn'].map((what) => `--can ${what}`)
  const WRITING = ['write', 'trim', 'zero', 'fast-zero'].map((what) => `--can ${what}`)
  const NOT = ['--is tls', '--is rotational']

  test('it is told what a disk can and what a read-only one cannot', async () => {
    const { uri, store } = await servedFiles(ODD, ['vda', 'vdb'], ['vdb'])
    await store.disk('vda').addBitmap('daily')
    const ask = async (disk: string, questions: string[]) => {
      const answers: Record<string, boolean> = {}
      for (const question of questions) answers[question] = await says(uri(disk), question)
      return answers
    }
    const all = (questions: string[], answer: boolean) =>
      Object.fromEntries(questions.map((question) => [question, answer]))
    const has = ['--can structured-reply', '--can connect']
    expect(await ask('vda', [...CAN, ...WRITING, ...has])).toEqual(all([...CAN, ...WRITING, ...has], true))
    expect(await ask('vda', [...NOT, '--is read-only'])).toEqual(all([...NOT, '--is read-only'], false))
    expect(await ask('vdb', [...CAN, ...has, '--is read-only'])).toEqual(
      all([...CAN, ...has, '--is read-only'], true),
    )
    expect(await ask('vdb', [...NOT, ...WRITING])).toEqual(all([...NOT, ...WRITING], false))
    for (const disk of ['vda', 'vdb'])
      expect((await run('nbdinfo', '--size', uri(disk, 1))).trim()).toBe(String(ODD))
    for (const wrong of ['vdc', 'VDA', 'vda/', 'vd'])
      await expect(says(uri('vda').replace('/vda', `/${wrong}`), '--can read')).rejects.toThrow('nbdinfo')
  })

  test('R2: the sums of a map are what was copied in, and together the disk to its last byte', async () => {
    const { uri, store } = await servedFiles(ODD, ['vda'])
    await store.disk('vda').addBitmap('daily', { granularity: 512 })
    await run('nbdcopy', '--', '[', 'nbdkit', '--exit-with-parent', 'pattern', '1000k', ']', uri('vda'))
    const totals = async (context: string) => {
      const words = [`--map=${context}`, '--totals', '--json']
      const sums = JSON.parse(await run('nbdinfo', ...words, uri('vda'))) as { size: number; type: number }[]
      return sums.map(({ size, type }) => [type, size]).sort()
    }
    expect(await totals('base:allocation')).toEqual([[0, ODD]])
    expect(await totals(`${DIRTY}daily`)).toEqual([
      [0, ODD - 1000 * KiB],
      [1, 1000 * KiB],
    ])
  })
})

describeWithPeers(['qemu-nbd'], 'qemu-nbd', () => {
  test.each(['-k', '-p'])(
    'qemu-nbd --list over %s has each disk with its size and its maps',
    async (door) => {
      const { served, store } = await servedFiles(ODD, ['vda', 'vdb'], ['vdb'])
      await store.disk('vda').addBitmap('daily')
      await store.createCheckpoint('before')
      const where =
        door === '-k' ? ['-k', served.socket!] : ['-b', '127.0.0.1', '-p', String(served.tcp!.port)]
      const text = await run('qemu-nbd', '--list', ...where)
      expect(text).toContain('exports available: 2')
      const [, first, second] = text.split(/export: '/)
      for (const [part, name] of [
        [first!, 'vda'],
        [second!, 'vdb'],
      ] as const) {
        expect(part.startsWith(`${name}'`)).toBe(true)
        expect(part).toMatch(new RegExp(`size: +${ODD}$`, 'm'))
        expect(part).toContain(`${DIRTY}@checkpoint=before`)
        expect(part.includes(`${DIRTY}daily`)).toBe(name === 'vda')
        expect(/flags: .*readonly/.test(part)).toBe(name === 'vdb')
      }
    },
  )
})

describeWithPeers(['nbd-client'], 'nbd-client', () => {
  const NAMES = ['vda', 'vm-17/vdb', 'ü']

  test('nbd-client --list has the names of the disks, over both doors', async () => {
    const { served } = await servedFiles(ODD, NAMES)
    for (const where of [
      ['127.0.0.1', String(served.tcp!.port)],
      ['-unix', served.socket!],
    ]) {
      const text = await run('nbd-client', '-l', ...where)
      expect(text.split('\n').map((line) => line.trim())).toEqual(
        expect.arrayContaining(NAMES.map((name) => `${name}: slicelog disk ${name}`)),
      )
    }
  })
})

/** What fio asked for by its own record, as `[offset, length]`: `write` or `trim`. */
function asked({ path }: ServedFiles, job: string, kinds: readonly string[]): [number, number][] {
  const found: [number, number][] = []
  for (const line of readFileSync(path(`${job}.iolog`), 'utf8').split('\n')) {
    const words = line.split(' ')
    const at = words.findIndex((word) => kinds.includes(word))
    if (at >= 0) found.push([Number(words[at + 1]), Number(words[at + 2])])
  }
  return found
}

describeWithPeers(['fio', 'nbdinfo'], 'fio', () => {
  test('R1, R2, R31: four jobs at once (mixed sizes verified, trims, in order, with syncs): the map is what they asked for', async ({
    skip,
  }) => {
    if (!/^\s*nbd$/m.test(await run('fio', '--enghelp'))) skip('this fio has no nbd engine')
    const all = await servedFiles(32 * MiB + 512, ['vda'])
    await all.store.createCheckpoint('before')
    await all.store.disk('vda').addBitmap('fine', { granularity: 512 })
    const amount = runs(3, 8)
    const job = (name: string, at: number, ...words: string[]) => [
      `--name=${name}`,
      `--offset=${at}m`,
      '--size=8m',
      `--io_size=${amount}m`,
      `--write_iolog=${all.path(`${name}.iolog`)}`,
      ...words,
    ]
    const verify = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0']
    const out = await run(
      'fio',
      '--ioengine=nbd',
      `--uri=${all.uri('vda')}`,
      '--output-format=json',
      '--iodepth=16',
      '--thread',
      ...job(
        'mixed',
        0,
        '--rw=randwrite',
        '--bssplit=512/20:4k/50:20k/20:64k/10',
        '--bs_unaligned=0',
        ...verify,
      ),
      ...job('trims', 8, '--rw=randtrim', '--bsrange=512-128k', '--blockalign=512'),
      ...job('order', 16, '--rw=write', '--bs=24k', '--fsync=16', ...verify),
      ...job('both', 24, '--rw=randrw', '--bsrange=512-32k', '--blockalign=512', '--norandommap'),
    )
    const { jobs } = JSON.parse(out.slice(out.indexOf('{'))) as { jobs: { jobname: string; error: number }[] }
    expect(jobs.map(({ jobname, error }) => [jobname, error])).toEqual(
      ['mixed', 'trims', 'order', 'both'].map((name) => [name, 0]),
    )
    const ranges = jobs.flatMap(({ jobname }) => asked(all, jobname, ['write', 'trim']))
    expect(asked(all, 'trims', ['trim']).length).toBeGreaterThan(10)
    expect(asked(all, 'mixed', ['write']).length).toBeGreaterThan(100)
    const map = granulesOf(await dirtyRanges(all.uri('vda'), 'fine'), 512)
    expect(map).toEqual(granulesOf(ranges, 512))
    const since = granulesOf(await dirtyRanges(all.uri('vda'), '@checkpoint=before'), 64 * KiB)
    expect(since).toEqual(granulesOf(ranges, 64 * KiB))
    expect(all.served.counts().errors).toBe(0)
  })
})
