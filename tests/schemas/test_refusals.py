from __future__ import annotations

import errno
import os

import pytest

from fedmq.schemas.errors import ConfigError, StoreError, UnusableError
from fedmq.schemas.refusals import kind_of, refused


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT])
def test_what_only_people_change_is_a_mistake_in_the_settings(number: int) -> None:
    assert kind_of(OSError(number, os.strerror(number))) is UnusableError
    assert issubclass(UnusableError, ConfigError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT])
def test_what_may_be_over_at_the_next_start_is_the_disks(number: int) -> None:
    assert type(refused("run", OSError(number, os.strerror(number)), "mend it")) is StoreError


def test_the_sentence_says_what_is_in_the_way() -> None:
    assert str(refused("run", OSError(errno.EEXIST, "File exists"), "mend it")) == (
        "run: it is a file and no folder; mend it"
    )
    assert str(refused("run", OSError(errno.ENOSPC, "No space left on device"), "mend it")) == (
        "run: No space left on device; mend it"
    )
