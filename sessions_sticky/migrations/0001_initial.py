from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Session",
            fields=[
                (
                    "id",
                    models.CharField(max_length=256, primary_key=True, serialize=False, verbose_name="conversation id"),
                ),
            ],
            options={
                "verbose_name": "session",
                "verbose_name_plural": "sessions",
                "managed": False,
                "base_manager_name": "objects",
            },
        ),
    ]
